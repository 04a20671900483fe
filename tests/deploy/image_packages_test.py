#!/usr/bin/env python3
"""The Dockerfile's final images install a list of Debian packages by hand: whether every library of this system that the
programs load comes with one of them.

  tests/deploy/image_packages_test.py --build build/release
"""

import argparse
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("pricer", "pricer-server", "pricer-trainer")
OPTIONS = None


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def runtime_packages():
    """What the stage that the final images begin with installs."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stage = re.search(r"^FROM \S+ AS runtime\n(.*?)^FROM ", dockerfile, re.MULTILINE | re.DOTALL).group(1)
    install = re.search(r"--no-install-recommends((?:\s+\\?\s*[a-z0-9.+-]+)+)", stage).group(1)
    return install.replace("\\", " ").split()


def with_dependencies(packages):
    """And those that dpkg installs with them, of the ones that are here, the first of those that may
    replace each other; a base image has the essential ones."""
    depends, waiting = {}, list(packages)
    listing = output_of("dpkg-query", "-W", "-f", "${Package}\\t${Essential}\\t${Depends}, ${Pre-Depends}\\n")
    for line in listing.splitlines():
        package, essential, names = line.split("\t")
        depends[package] = re.findall(r"(?:^|,)\s*([a-z0-9.+-]+)", names)
        if essential == "yes":
            waiting.append(package)
    found = set()
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            waiting += depends.get(package, [])
    return found


def packages_of(libraries):
    """Library -> the package that brings it, for those of packages; dpkg may know them by paths from before /lib was a link."""
    paths = [path for library in libraries for path in (library, library.removeprefix("/usr"))]
    # It fails where it does not know one.
    found = subprocess.run(["dpkg-query", "-S", *paths], check=False, capture_output=True, text=True).stdout
    owners = dict(reversed(line.split(": ", 1)) for line in found.splitlines())
    return {library: owner.split(":")[0] for library in libraries
            if (owner := owners.get(library) or owners.get(library.removeprefix("/usr")))}


class ImagePackagesTest(unittest.TestCase):
    def test_programs_load_nothing_that_images_lack(self):
        packages = with_dependencies(runtime_packages())
        for program in PROGRAMS:
            loaded = re.findall(r"=> (/\S+)", output_of("ldd", pathlib.Path(OPTIONS.build, "bin", program)))
            # What no package brings is copied beside the programs.
            owners = packages_of({str(pathlib.Path(path).resolve()) for path in loaded})
            self.assertGreater(len(owners), 5, program)
            self.assertEqual({}, {library: owner for library, owner in owners.items() if owner not in packages}, program)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
