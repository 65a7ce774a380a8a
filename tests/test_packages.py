"""What is made of the package: a zipapp, typed, with the public names that it says."""

import re
import shutil
import subprocess
import types
import unittest
import zipapp
from pathlib import Path

import mmapipc

from .helpers import DEADLINE, PYTHON, ChannelTest, noise

PACKAGE = Path(mmapipc.__file__).parent
ROOT = Path(__file__).resolve().parent.parent


class Zipapps(ChannelTest):
    def setUp(self):
        super().setUp()
        app = self.folder / "app"
        # Not copy2, the default: Wine 8 lacks its CopyFile2.
        shutil.copytree(
            PACKAGE,
            app / "mmapipc",
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )
        self.pyz = str(self.folder / "mmapipc.pyz")
        zipapp.create_archive(app, self.pyz, main="mmapipc.__main__:main")

    def run_pyz(self, *arguments, stdin=subprocess.DEVNULL):
        return self.start([*PYTHON, self.pyz, *arguments], stdin)

    def test_a_stream(self):
        sent = noise(300_000)
        target = self.folder / "target"
        receiver = self.run_pyz("receive", self.name, "-o", str(target), "--timeout", str(DEADLINE))
        sender = self.run_pyz("send", self.name, "--timeout", str(DEADLINE), stdin=subprocess.PIPE)
        sender.feed(sent)
        self.assertEqual(sender.end(), (0, b"", ""))
        self.assertEqual(receiver.end(), (0, b"", ""))
        self.assertEqual(target.read_bytes(), sent)

    def test_exit_codes(self):
        code, _, err = self.run_pyz("receive", self.name, "--timeout", "0.1").end()
        self.assertEqual(code, 4, err)
        self.assertIn(self.name, err)
        code, _, err = self.run_pyz("send").end()
        self.assertEqual(code, 2, err)
        self.assertIn("mmapipc", err)


class Package(unittest.TestCase):
    def test_the_public_names(self):
        self.assertEqual(mmapipc.__all__, sorted(mmapipc.__all__))
        public = {
            name
            for name in dir(mmapipc)
            if not name.startswith("_") and not isinstance(getattr(mmapipc, name), types.ModuleType)
        }
        self.assertEqual(public, set(mmapipc.__all__))

    def test_it_says_that_it_is_typed(self):
        self.assertTrue((PACKAGE / "py.typed").is_file())

    def test_it_has_its_documents(self):
        documents = """
            CHANGES COMMAND COMPARISON CONNECTIONS EXAMPLES FAQ FILES GUARANTEES
            HOUSE LAYOUT LIBRARY MAPPINGS WINDOWS
        """.split()
        self.assertEqual(sorted(path.stem for path in PACKAGE.glob("*.md")), documents)

    def test_the_change_log_has_this_version(self):
        changes = (PACKAGE / "CHANGES.md").read_text("utf-8")
        self.assertEqual(re.findall("^## (.*)$", changes, re.MULTILINE)[0], mmapipc.__version__)

    def test_what_is_said_to_be_tested_is_run(self):
        run, page, setup = (
            (ROOT / name).read_text("utf-8") for name in (".ci/run", "README.md", "setup.cfg")
        )
        oldest, between, newest, jobs = (
            re.findall(rf"^{name}=\(?([^()\n]*)", run, re.MULTILINE)[0].split()
            for name in ("oldest", "between", "newest", "jobs")
        )
        pythons = [*oldest, *between, *newest]
        windows = sorted((job for job in jobs if job.startswith("3.")), key=pythons.index)
        self.assertEqual(pythons, [f"3.{minor}" for minor in range(10, 10 + len(pythons))])
        self.assertIn("aarch64", jobs)
        self.assertIn(
            f"Tested: CPython {pythons[0]} to {pythons[-1]} on Linux, one of them on aarch64, "
            f"which is emulated; {' and '.join(windows)} for Windows under Wine.",
            page,
        )
        self.assertEqual(re.findall(r":: Python :: (3\.\d+)$", setup, re.MULTILINE), pythons)
        self.assertIn(f"python_requires = >={pythons[0]}\n", setup)
