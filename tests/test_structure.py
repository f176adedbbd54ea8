"""Rules about the source: layers, no import cycles, and no way for data to become code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from automl.search_spaces import SPACES

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {  # the table of docs/architecture.md
    "automl": {"child_trainers", "controllers", "search_spaces", "db"},
    "child_trainers": {"search_spaces", "db"},
    "controllers": {"search_spaces"},
    "search_spaces": set(),
    "db": set(),
}
# Database code may put only these into the text of a statement: none of them comes from a user.
SQL_CONSTANTS = {"APPLICATION_ID"}
# The only module that reads pickles: it allows only NumPy arrays.
PICKLE = {"child_trainers/data/numpy_unpickler.py"}
# The only module that runs a user's file: one that is named on the command line and approved, never one from a store.
REGISTRY = "automl.child_trainers.registry"
USER_FILES = {"child_trainers/user_modules.py": "exec"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "keras.config.enable_unsafe_deserialization",
}
FORBIDDEN_KEYWORDS = {"shell": True, "allow_pickle": True, "safe_mode": False}


def sources() -> list[str]:
    return [str(path.relative_to(ROOT)) for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


@functools.cache
def tree_of(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def module_of(path: str) -> str:
    """The name by which a file is imported: `automl/` has links to the four packages beside it."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.partition(".")[0] == "automl" else f"automl.{name}"


def package_of(name: str) -> str | None:
    """The folder of a module of ours by its full name; None for others."""
    first, _, rest = name.partition(".")
    if first != "automl":
        return None
    return rest.partition(".")[0] if rest.partition(".")[0] in MAY_IMPORT else "automl"


def imported(node: ast.AST, package: str) -> list[str]:
    """The modules that an import statement names; `from x import y` may mean the module x.y as well."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{package}: imports are absolute"
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def at_import_time(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported; not functions, not `if TYPE_CHECKING`."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
            yield from at_import_time(statement.orelse)
            continue
        yield statement
        for part in ("body", "orelse", "finalbody"):
            yield from at_import_time(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from at_import_time(handler.body)


def test_every_package_is_looked_at() -> None:
    assert {path.partition("/")[0] for path in sources()} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", sources())
def test_imports_run_downwards_only(path: str) -> None:
    package = path.partition("/")[0]
    for node in ast.walk(tree_of(path)):
        for name in imported(node, path):
            other = package_of(name)
            if other is not None and other != package:
                assert other in MAY_IMPORT[package], f"{path} imports {name}"
            assert name.partition(".")[0] != "tests", f"{path} imports {name}"


LONG = {"automl/testing/controllers.py"}  # docs/architecture.md gives the reason


@pytest.mark.parametrize("path", [path for path in sources() if path.startswith(("automl/", "child_trainers/"))])
def test_files_are_short(path: str) -> None:
    lines = (ROOT / path).read_text().count("\n")
    assert (lines > 350) == (path in LONG)


def test_the_database_knows_no_tensors() -> None:
    for path in sources():
        if path.startswith("db/"):
            names = {name.partition(".")[0] for node in ast.walk(tree_of(path)) for name in imported(node, path)}
            assert not names & {"tensorflow", "keras"}, path


def test_the_package_root_and_the_members_import_no_tensorflow() -> None:
    """`import automl`, and listing controllers, spaces and tasks, must be quick."""
    waiting, seen = ["automl", *(f"automl.{name}" for name in MAY_IMPORT if name != "automl"), REGISTRY], set()
    graph = import_graph()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    paths = {module_of(path): path for path in sources()}
    for module in seen:
        for statement in at_import_time(tree_of(paths[module]).body):
            names = {name.partition(".")[0] for name in imported(statement, module)}
            assert not names & {"tensorflow", "keras"}, module


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """Each module with the modules of ours that it imports. A package's own `__init__` counts as imported, too."""
    modules = {module_of(path): path for path in sources()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {name for node in at_import_time(tree_of(path).body) for name in imported(node, path)}
        graph[module] = (names & set(modules)) - {module}
    return graph


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = import_graph()
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module in done:
            return
        for other in sorted(graph[module]):
            visit(other, (*way, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("path", sources())
def test_nothing_stored_can_become_code(path: str) -> None:
    for node in ast.walk(tree_of(path)):
        for name in imported(node, path):
            assert name.partition(".")[0] not in FORBIDDEN_MODULES or path in PICKLE, f"{path} imports {name}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in FORBIDDEN_CALLS or called == USER_FILES.get(path), (
                f"{path}:{node.lineno} calls {called}"
            )
            for keyword in node.keywords:
                if keyword.arg in FORBIDDEN_KEYWORDS and isinstance(keyword.value, ast.Constant):
                    allowed = keyword.value.value is not FORBIDDEN_KEYWORDS[keyword.arg]
                    assert allowed, f"{path}:{node.lineno} passes {ast.unparse(keyword)}"


SQL_METHODS = {"text", "exec_driver_sql", "execute", "executescript", "executemany", "scalar", "scalars"}


def unsafe_sql(node: ast.Call) -> str | None:
    """Why the SQL text of a call is not a constant, or None."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in SQL_METHODS or not node.args:
        return None
    statement = node.args[0]
    for part in ast.walk(statement):
        if isinstance(part, ast.FormattedValue) and ast.unparse(part.value) not in SQL_CONSTANTS:
            return f"puts {ast.unparse(part.value)} into SQL"
    formatted = isinstance(statement, ast.BinOp) and isinstance(statement.op, ast.Add | ast.Mod)
    if formatted and any(isinstance(part, ast.Constant | ast.JoinedStr) for part in ast.walk(statement)):
        return f"puts SQL together: {ast.unparse(statement)}"
    called = statement.func if isinstance(statement, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr == "format":
        return f"formats SQL: {ast.unparse(statement)}"
    return None


@pytest.mark.parametrize("path", sources())
def test_sql_is_never_put_together_from_data(path: str) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            why = unsafe_sql(node)
            assert why is None, f"{path}:{node.lineno} {why}"


@pytest.mark.parametrize(
    "statement",
    [
        'text(f"SELECT {name}")',
        'connection.exec_driver_sql("SELECT " + name)',
        'connection.execute("SELECT %s" % name)',
        'connection.scalar(text("SELECT {}".format(name)))',
    ],
)
def test_the_test_would_notice(statement: str) -> None:
    calls = [node for node in ast.walk(ast.parse(statement)) if isinstance(node, ast.Call)]
    assert any(unsafe_sql(call) for call in calls)


@pytest.mark.parametrize("path", sources())
def test_only_database_code_has_sql(path: str) -> None:
    names = {name.partition(".")[0] for node in ast.walk(tree_of(path)) for name in imported(node, path)}
    assert path.startswith("db/") or not names & {"sqlalchemy", "sqlite3", "alembic", "psycopg"}


# The only module that writes to the terminal: it escapes control characters.
TERMINAL = "automl/cli/terminal.py"
WRITES = {"sys.stdout.write", "sys.stderr.write", "builtins.print", "typer.echo", "typer.secho", "Console"}


def unescaped(tree: ast.Module) -> list[str]:
    """The calls in a module that write to the terminal without escaping."""
    safe = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "automl.cli.terminal"
        and any(alias.name == "print" for alias in node.names)
        for node in tree.body
    )
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [(call, ast.unparse(call.func)) for call in calls]
    return [ast.unparse(call) for call, name in names if name in WRITES or (name == "print" and not safe)]


@pytest.mark.parametrize("path", [path for path in sources() if path.startswith("automl/") and path != TERMINAL])
def test_all_that_is_printed_is_escaped(path: str) -> None:
    assert unescaped(tree_of(path)) == []


def test_a_print_that_does_not_escape_would_be_noticed() -> None:
    safe = "from automl.cli.terminal import print\n"
    assert unescaped(ast.parse("print(name)")) == ["print(name)"]
    assert unescaped(ast.parse(safe + "print(name)")) == []
    assert unescaped(ast.parse(safe + "sys.stdout.write(name)\nConsole().log(name)")) == [
        "sys.stdout.write(name)",
        "Console()",
    ]


SPECS_AND_TASKS = {"spec", "task", "cell", "net", "rule", "example", "child_spec"}


def last_name(node: ast.expr) -> str:
    """`task` of `experiment.task`, `spec` of `walk.spec` or of `type(walk.spec)`."""
    if isinstance(node, ast.Call) and node.args:
        return last_name(node.args[0])
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def probes(tree: ast.Module) -> list[str]:
    """The calls that look for an attribute of a spec or a task instead of asking for a declared capability."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    probing = [call for call in calls if ast.unparse(call.func) in ("hasattr", "getattr")]
    return [ast.unparse(call) for call in probing if last_name(call.args[0]) in SPECS_AND_TASKS]


def untyped(tree: ast.Module) -> list[str]:
    """Arguments and attributes that are a spec or a task, and are annotated with Any."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in SPECS_AND_TASKS and node.annotation is not None:
            found += [node.arg] if ast.unparse(node.annotation) == "Any" else []
        if isinstance(node, ast.AnnAssign) and last_name(node.target) in SPECS_AND_TASKS:
            found += [ast.unparse(node)] if ast.unparse(node.annotation) == "Any" else []
    return found


@pytest.mark.parametrize("path", sources())
def test_specs_and_tasks_declare_what_they_can_do(path: str) -> None:
    assert probes(tree_of(path)) == []
    assert untyped(tree_of(path)) == []


def test_a_probed_spec_would_be_noticed() -> None:
    assert probes(ast.parse('hasattr(walk.spec, "build")')) == ["hasattr(walk.spec, 'build')"]
    assert probes(ast.parse('getattr(type(task), "recipe", None)')) == ["getattr(type(task), 'recipe', None)"]
    assert probes(ast.parse("isinstance(spec, Buildable)")) == []
    assert untyped(ast.parse("def check(spec: Any): ...")) == ["spec"]
    assert untyped(ast.parse("class Child:\n    task: Any")) == ["task: Any"]


def space_names(tree: ast.Module) -> list[str]:
    """The texts of a module, other than docstrings, that name a space."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
    names = "|".join(map(re.escape, SPACES))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if text not in docstrings and re.search(rf"(?<![\w-])({names})(?![\w-])", text)]


@pytest.mark.parametrize("path", [path for path in sources() if path.startswith("automl/")])
def test_automl_names_no_space(path: str) -> None:
    """Differences between spaces are data of `search_spaces` and `child_trainers.registry`."""
    assert space_names(tree_of(path)) == []
    folders = {f"automl.search_spaces.{name.replace('-', '_')}" for name in SPACES}
    for node in ast.walk(tree_of(path)):
        for name in imported(node, path):
            assert ".".join(name.split(".")[:3]) not in folders, f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in sources() if path.startswith(("automl/", "child_trainers/"))])
def test_no_space_is_a_special_case(path: str) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Compare | ast.Match):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            assert not set(texts) & set(SPACES), f"{path}:{node.lineno} asks which space it is"


def test_a_space_that_is_named_would_be_noticed() -> None:
    assert space_names(ast.parse('"""Of convnet."""\nraise ValueError("choose --space update-rule.")')) == [
        "choose --space update-rule."
    ]
    assert space_names(ast.parse('print("a jointly trained convnets")')) == []
