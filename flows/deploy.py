"""`python -m flows.deploy`: pools, deployments and automations of prefect.yaml onto the server of PREFECT_API_URL."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from flows.automations import install_automations

ROOT = Path(__file__).resolve().parent.parent
TAG = "nestling"  # marks the deployments that come from prefect.yaml


def project(root: Path = ROOT) -> dict[str, Any]:
    """prefect.yaml as data."""
    return yaml.safe_load((root / "prefect.yaml").read_text())


async def make_pools(client: PrefectClient, root: Path = ROOT) -> None:
    """Make or update each work pool of `definitions.pools`; an existing pool keeps its type."""
    for name, pool in project(root)["definitions"]["pools"].items():
        template = json.loads((root / pool["template"]).read_text())
        try:
            await client.read_work_pool(name)
        except ObjectNotFound:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=name, type=pool["type"], description=pool["description"], base_job_template=template
                )
            )
        else:
            update = WorkPoolUpdate(description=pool["description"], base_job_template=template)
            await client.update_work_pool(name, update)


def deploy_all(root: Path = ROOT) -> None:
    """Deploy everything in prefect.yaml.

    Raises:
        RuntimeError: `prefect deploy` failed; the message carries what it printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=os.environ | {"NESTLING_ROOT": str(root), "PREFECT_CLI_COLORS": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"`prefect deploy --all` ended with {done.returncode}:\n{done.stdout[-4000:]}")


async def deployed(client: PrefectClient) -> set[str]:
    """`flow/name` of the deployments on the server that came from prefect.yaml."""
    flows = {flow.id: flow.name for flow in await client.read_flows(limit=200)}
    found = await client.read_deployments(limit=200)
    return {f"{flows[deployment.flow_id]}/{deployment.name}" for deployment in found if TAG in deployment.tags}


async def deploy_project(root: Path) -> set[str]:
    """Pools, deployments and automations; returns the names of what is deployed."""
    async with get_client() as client:
        await make_pools(client, root)
        await asyncio.to_thread(deploy_all, root)
        await install_automations(client)
        return await deployed(client)


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    names = asyncio.run(deploy_project(root))
    expected = len(project(root)["deployments"])
    if len(names) > expected:
        print(f"{len(names) - expected} deployments are no longer in prefect.yaml; `prefect deployment delete` them")
    print(f"{expected} deployments: {', '.join(sorted(names))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
