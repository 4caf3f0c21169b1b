// cni: the smallest thing that makes ptp + host-local a cluster network.
//
// It runs as a hostNetwork DaemonSet and, every few seconds:
//   - writes /etc/cni/net.d/10-ptp.conflist with this node's pod CIDR,
//   - adds a route to every other node's pod CIDR through that node's address,
//   - keeps one MASQUERADE rule for traffic which leaves the pod network.
//
// Only the standard library is used; it talks to the API server with its
// service account token.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const saDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

type nodeList struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct{ PodCIDR string }
		Status   struct {
			Addresses []struct{ Type, Address string }
		}
	}
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func main() {
	self, podSubnet := os.Getenv("NODE_NAME"), os.Getenv("POD_SUBNET")
	server := os.Getenv("CONTROL_PLANE_ENDPOINT")
	if server == "" {
		server = os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT")
	}
	confDir := os.Getenv("CNI_CONF_DIR")
	if confDir == "" {
		confDir = "/etc/cni/net.d"
	}
	ca, err := os.ReadFile(saDir + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}}}

	rule := []string{"POSTROUTING", "-s", podSubnet, "!", "-d", podSubnet, "-j", "MASQUERADE"}
	check := append([]string{"-w", "-t", "nat", "-C"}, rule...)
	add := append([]string{"-w", "-t", "nat", "-A"}, rule...)
	if run("iptables", check...) != nil {
		if err := run("iptables", add...); err != nil {
			log.Fatal(err)
		}
	}

	written := ""
	for {
		wait := 10 * time.Second
		if err := sync(client, server, self, confDir, &written); err != nil {
			log.Print(err)
			wait = time.Second
		}
		time.Sleep(wait)
	}
}

func sync(client *http.Client, server, self, confDir string, written *string) error {
	token, err := os.ReadFile(saDir + "token")
	if err != nil {
		return err
	}
	req, _ := http.NewRequest("GET", "https://"+server+"/api/v1/nodes?resourceVersion=0", nil)
	req.Header.Set("Authorization", "Bearer "+string(token))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return fmt.Errorf("list nodes: %s", resp.Status)
	}
	var nodes nodeList
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return err
	}
	found := false
	for _, n := range nodes.Items {
		if n.Spec.PodCIDR == "" {
			continue
		}
		if n.Metadata.Name == self {
			found = true
			if err := writeConf(confDir, n.Spec.PodCIDR, written); err != nil {
				return err
			}
			continue
		}
		for _, a := range n.Status.Addresses {
			if a.Type == "InternalIP" {
				if err := run("ip", "route", "replace", n.Spec.PodCIDR, "via", a.Address); err != nil {
					return err
				}
				break
			}
		}
	}
	if !found {
		return fmt.Errorf("node %q has no pod CIDR yet", self)
	}
	return nil
}

func writeConf(dir, cidr string, written *string) error {
	if *written == cidr {
		return nil
	}
	conf := fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "ptp",
  "plugins": [
    {"type": "ptp", "mtu": %d,
     "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam",
              "routes": [{"dst": "0.0.0.0/0"}],
              "ranges": [[{"subnet": %q}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, mtu(), cidr)
	tmp := filepath.Join(dir, ".ptp.tmp")
	if err := os.WriteFile(tmp, []byte(conf), 0o644); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, "10-ptp.conflist")); err != nil {
		return err
	}
	*written = cidr
	log.Printf("pod CIDR %s", cidr)
	return nil
}

// mtu of the node's uplink, which the pods' links must not exceed.
func mtu() int {
	n := 1500
	if b, err := os.ReadFile("/sys/class/net/eth0/mtu"); err == nil {
		fmt.Sscan(string(b), &n)
	}
	return n
}
