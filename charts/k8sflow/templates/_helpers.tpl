{{/* Labels of every object of the release. */}}
{{- define "k8sflow.labels" -}}
app.kubernetes.io/name: k8sflow
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The labels by which the Deployment finds its pod. */}}
{{- define "k8sflow.selector" -}}
app.kubernetes.io/name: k8sflow
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{/* The labels by which the Service and the Deployment of the page of runs find its pod. */}}
{{- define "k8sflow.uiSelector" -}}
app.kubernetes.io/name: k8sflow
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: ui
{{- end }}

{{/* The image, by digest if one is given. */}}
{{- define "k8sflow.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The namespaces to watch for FlowRuns, as a JSON list. */}}
{{- define "k8sflow.namespaces" -}}
{{ .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- end }}
