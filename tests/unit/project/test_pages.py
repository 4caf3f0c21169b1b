"""Links between pages, and the commands of the CI workflows."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[3]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
PAGES = [CHECKOUT / name for name in LISTED.splitlines() if (CHECKOUT / name).exists()]
WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_to_files_and_headings_lead_somewhere(page: Path):
    """A page or heading that is renamed takes its links along."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith(("http:", "https:", "mailto:")):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(link)
    assert broken == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflows_run_the_commands_that_a_person_types(workflow: Path):
    """Each step is a make target, .ci/run, or the release's upload."""
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    assert commands
    for command in commands:
        program, *arguments = command.split()
        assert program in {"make", ".ci/run", "gh"}
        assert program != "make" or arguments[0] in targets
