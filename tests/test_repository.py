"""The repository as a whole: pins, documents that tell the truth, and code that never does what it must not."""

import ast
import re
import subprocess
import tomllib
from importlib.metadata import distribution, distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from doppel.cli.app import app
from doppel.config import parse_config
from tests.test_layers import imported

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")
CODE = [path for package in ("doppel", "training", "bot") for path in sorted((ROOT / package).rglob("*.py"))]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def needed(name: str, extras: tuple[str, ...], seen: dict[str, str]) -> dict[str, str]:
    """Name and installed version of everything a distribution needs on this machine, direct or not."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        environments = [{"extra": extra} for extra in (*extras, "")]
        if requirement.marker is None or any(requirement.marker.evaluate(environment) for environment in environments):
            inner = canonicalize_name(requirement.name)
            if inner not in seen or requirement.extras:
                seen[inner] = distribution(inner).version
                needed(inner, tuple(requirement.extras), seen)
    return seen


class TestPins:
    def test_everything_that_is_needed_is_pinned(self) -> None:
        assert needed("doppel", ("dev",), {}).keys() - pins().keys() == set()

    def test_what_is_installed_is_what_is_pinned(self) -> None:
        installed = {
            canonicalize_name(distribution.name): distribution.version.partition("+")[0]
            for distribution in distributions()
            if distribution.name
        }
        assert {
            name: (installed[name], version)
            for name, version in pins().items()
            if name in installed and installed[name] != version
        } == {}

    def test_the_makefile_installs_the_pinned_torch(self) -> None:
        assert f"torch=={pins()['torch']}" in read("Makefile")

    def test_the_project_itself_is_not_pinned(self) -> None:
        assert "doppel" not in pins()


@pytest.mark.parametrize("name", READMES)
class TestReadme:
    def test_its_links_lead_somewhere(self, name: str) -> None:
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", read(name)) if not link.startswith("http")]
        assert len(links) > 8
        assert [link for link in links if not (ROOT / link.replace("\\", "")).exists()] == []

    def test_its_commands_exist(self, name: str) -> None:
        commands = set(get_command(app()).commands)  # type: ignore[attr-defined]
        mentioned = set(re.findall(r"(?:`|^\s*|/bin/)doppel ([a-z]+)", read(name), re.MULTILINE))
        assert mentioned == commands

    def test_its_make_targets_exist(self, name: str) -> None:
        targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
        mentioned = set(re.findall(r"(?:`|^)make ([a-z]+)", read(name), re.MULTILINE))
        assert {"run", "test"} <= mentioned <= targets

    def test_its_pieces_of_configuration_are_right(self, name: str) -> None:
        blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", read(name), re.MULTILINE | re.DOTALL)
        assert len(blocks) == 7
        for block in blocks:
            parse_config(yaml.safe_load(block), ROOT / "config.yaml")

    def test_both_languages_have_the_same_parts(self, name: str) -> None:
        shapes = [re.findall(r"^(#+|```|\|---|\d\.|- \*)", read(path), re.MULTILINE) for path in (name, READMES[0])]
        assert shapes[0] == shapes[1]


def test_the_version_has_an_entry_in_the_changelog() -> None:
    assert f"## {distribution('doppel').version}" in read("CHANGELOG.md")


def test_every_entry_point_is_there() -> None:
    groups = tomllib.loads(read("pyproject.toml"))["project"]["entry-points"]
    for group in groups.values():
        for target in group.values():
            module, _, name = target.partition(":")
            path = ROOT / Path(*module.split("."))
            source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
            assert re.search(rf"^(async def|def|class) {name}\b|^{name} = ", source.read_text(), re.MULTILINE), target


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_from_models_and_no_pickle(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            assert node.arg != "trust_remote_code" or ast.unparse(node.value) == "False"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system"}
            if called == "torch.load":  # of an old adapter, and only ever its tensors
                assert {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}["weights_only"] == "True"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert names.isdisjoint({"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_nothing_of_the_owners_is_in_the_repository() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = done.stdout.split()
    assert [
        path for path in files if re.match(r"(data|adapters|archive|\.venv)/|.*\.(db|safetensors|gguf)$", path)
    ] == []
    texts = [path for path in files if not path.endswith(".png")]
    token = re.compile(rb"\b\d{8,10}:AA[\w-]{33}\b|\b[MN][\w-]{23}\.[\w-]{6}\.[\w-]{27,}\b")
    assert [text for text in texts if (ROOT / text).is_file() and token.search((ROOT / text).read_bytes())] == []


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("doppel", "training", "bot"), ("track", "tune", "names", "llamacpp", "postgres")),
        (("tests", "benchmarks"), ("dev", "bench")),
    ],
)
def test_every_library_that_is_imported_is_declared(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    declared = {canonicalize_name(Requirement(line).name) for line in lines} | {"doppel"}
    owners = packages_distributions()
    undeclared = {
        name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
        if name in owners and declared.isdisjoint(canonicalize_name(owner) for owner in owners[name])
    }
    assert undeclared == set()
