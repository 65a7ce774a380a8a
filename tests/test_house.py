"""The house stands as HOUSE.md draws it: who knows whom, and what only one room does."""

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path

import mmapipc

PACKAGE = Path(mmapipc.__file__).parent

# From the top down: a room may import what stands below it, and rooms of its own floor's folder.
FLOORS = (
    ("__main__",),
    ("_cli",),
    ("__init__",),
    ("files", "aio"),
    ("channel", "connection", "inspection", "mapping"),
    ("waiting",),
    ("_meeting",),
    ("_ring", "_system"),
    ("errors",),
)
STATES = {"SENDER_STATE", "RECEIVER_STATE", "peer_state"}  # the last is either, in `Half`
PURE = {"__future__", "sys", "zlib", "contextlib", "enum", "_thread", "itertools"}
PURE |= {"collections.abc", "typing", "_typeshed"}  # for annotations


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Each module: its dotted name below the package, and its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        yield ".".join(parts), ast.parse(path.read_text("utf-8"))


def imported(name: str, tree: ast.Module) -> Iterator[str]:
    """The rooms of the package that a module imports, as dotted names below it."""
    is_folder = (PACKAGE / name.replace(".", "/")).is_dir()
    here = name.split(".") if is_folder else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            if node.module:
                yield ".".join([*base, *node.module.split(".")])
            else:
                for alias in node.names:
                    # A name that is no room is one of the package's face.
                    room = [*base, alias.name]
                    path = PACKAGE.joinpath(*room)
                    is_room = path.is_dir() or path.with_suffix(".py").exists()
                    yield ".".join(room if is_room else base) or "__init__"


def absolute(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """The other imports of a module: from where, and which names, none if it is the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or "", [alias.name for alias in node.names]


def floor(room: str) -> int:
    """The number of the floor, from the top."""
    top = room.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if top in rooms)


class House(unittest.TestCase):
    def test_every_room_stands_on_a_floor(self):
        for name, _ in modules():
            floor(name)

    def test_imports_point_downwards_only(self):
        seen = 0
        for name, tree in modules():
            for module, _ in absolute(tree):  # or `imported` would not see it
                self.assertNotEqual(module.split(".")[0], "mmapipc", name)
            for other in imported(name, tree):
                seen += 1
                same = name.split(".")[0] == other.split(".")[0]
                self.assertTrue(same or floor(name) < floor(other), f"{name} imports {other}")
        self.assertGreater(seen, 50)

    def test_no_rooms_import_each_other_in_a_circle(self):
        below = {name: set(imported(name, tree)) - {name} for name, tree in modules()}
        while below:
            free = {name for name, others in below.items() if not others & below.keys()}
            self.assertTrue(free, f"in a circle: {below}")
            for name in free:
                del below[name]

    def test_the_ring_knows_no_system_clock_or_file(self):
        for name, tree in modules():
            if name.startswith("_ring."):
                for module, names in absolute(tree):
                    if (module, names) != ("io", ["BytesIO"]):
                        self.assertIn(module, PURE, name)
                for node in ast.walk(tree):
                    if isinstance(node, ast.Name):
                        self.assertNotEqual(node.id, "open", f"{name}:{node.lineno}")

    def test_only_states_stores_a_state(self):
        storing = set()
        for name, tree in modules():
            for node in ast.walk(tree):
                if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                    word = node.slice
                    called = word.attr if isinstance(word, ast.Attribute) else getattr(word, "id", "")
                    if called in STATES or called.lstrip("_") in STATES:
                        storing.add(name)
        self.assertEqual(storing, {"_ring.states"})

    def test_only_layout_knows_an_offset(self):
        for name, tree in modules():
            for node in ast.walk(tree):
                if isinstance(node, ast.Subscript) and name != "_ring.layout":
                    seen = node.value
                    of = seen.attr if isinstance(seen, ast.Attribute) else getattr(seen, "id", "")
                    if of == "words":
                        self.assertNotIsInstance(node.slice, ast.Constant, f"{name}:{node.lineno}")

    def test_only_the_system_floor_asks_which_system_this_is(self):
        systems = ("sys.platform", "sys.getwindowsversion", "os.name", "os.uname")
        for name, tree in modules():
            if not name.startswith("_system"):
                for node in ast.walk(tree):
                    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                        asked = f"{node.value.id}.{node.attr}"
                        self.assertNotIn(asked, systems, f"{name}:{node.lineno}")
                for module, names in absolute(tree):
                    self.assertNotEqual(module, "platform", name)
                    for taken in names:
                        self.assertNotIn(f"{module}.{taken}", systems, name)

    def test_what_users_do_not_import_begins_with_an_underscore(self):
        public = {
            path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        rooms = {name for name in public if not name.startswith("_")}
        self.assertEqual(
            rooms, {"aio", "channel", "connection", "errors", "files", "inspection", "mapping", "waiting"}
        )

    def test_no_line_has_more_than_110_characters(self):
        tests = Path(__file__).parent
        scripts = tests.parent / "scripts"  # not there when the package is installed
        for path in (*PACKAGE.rglob("*.py"), *tests.glob("*.py"), *scripts.glob("*.py")):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                self.assertLessEqual(len(line), 110, f"{path.name}:{number}")
