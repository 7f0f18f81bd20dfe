"""`dlink-sign`: signs a plan."""

import os
from pathlib import Path

import click

from dlink.cli.options import IN_FILE, OUT_PATH
from dlink.cli.step import Step
from dlink.runtime.errors import BadInput

PASSWORD = "DLINK_KEY_PASSWORD"


@click.command(cls=Step, short_help="Sign a plan.")
@click.argument("key", type=OUT_PATH)
@click.argument("plan", type=IN_FILE, required=False)
@click.option("--new", is_flag=True, help="Make a pair of keys first: KEY, which is secret, and KEY.pub.")
def sign(key: Path, plan: Path | None, new: bool) -> None:
    """Sign PLAN's manifest, and with it the plan, with the private KEY (Ed25519, PEM).

    Sign after dlink-check, which writes its verdict into the manifest. open_model(plan, keys=[...]), or --key on the
    command line, then opens only a plan that one of these public keys has signed. The password of an encrypted key is
    read from $DLINK_KEY_PASSWORD, or asked for.
    """
    if not new and not plan:
        raise BadInput("PLAN is missing: name the plan to sign, or give --new for a pair of keys")
    if plan and plan.suffix != ".plan":
        raise BadInput(f"{plan}: expected a plan (.plan)")
    from dlink.trt_runtime import signing
    from dlink.trt_runtime.manifest import parse, read_bytes
    from dlink.trt_runtime.plan import read_exactly

    if new:
        click.echo(f"{signing.make_keys(key)}: the public key; {key} is the private one, keep it secret")
    if not plan:
        return
    data = read_bytes(plan)
    manifest = parse(data, plan)
    read_exactly(plan, manifest)
    click.echo(f"{signing.sign(plan, data, private(key))}: {plan} signed")
    if manifest.verdict is None:
        click.echo("note: it has no verdict yet; dlink-check writes one, and then it must be signed again", err=True)


def private(key: Path):  # type: ignore[no-untyped-def]  # its type is cryptography's, which is not imported here
    from dlink.trt_runtime.signing import read_private

    password = os.environ.get(PASSWORD)
    try:
        return read_private(key, password.encode() if password else None)
    except TypeError:  # the key is encrypted
        return read_private(key, click.prompt(f"Password of {key}", hide_input=True, err=True).encode())
