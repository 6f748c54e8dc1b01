"""Ask for known vulnerabilities of the pinned packages: ``make audit``.

pip-audit exits with 0 also where the service of vulnerabilities did not answer. Here that is said,
and is no pass: exit code 1 if a vulnerability is known, 2 if nobody could be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

AUDIT = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "--timeout", "15")
VULNERABLE, UNREACHABLE = 1, 2


def judge(packages: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """Return the exit code and what to say, from the packages of pip-audit's report.

    >>> judge([{"name": "a", "version": "1", "vulns": []}])
    (0, ['1 packages, no known vulnerability'])
    >>> code, lines = judge([{"name": "a", "skip_reason": "Dependency not found on PyPI"}])
    >>> code, lines[0]
    (2, 'not reachable: nothing is known of 1 of 1 packages (a: Dependency not found on PyPI)')
    """
    lines, skipped = [], [each for each in packages if "skip_reason" in each]
    for package in packages:
        for found in package.get("vulns", ()):
            fixed = ", ".join(found.get("fix_versions", ())) or "no version"
            what = f"{package['name']} {package['version']}: {found['id']}"
            lines.append(f"{what}, fixed in {fixed}")
    if lines:
        return VULNERABLE, lines
    if not packages:
        return UNREACHABLE, ["not reachable: pip-audit answered for no package"]
    if skipped:
        first = skipped[0]
        return UNREACHABLE, [
            f"not reachable: nothing is known of {len(skipped)} of {len(packages)} packages"
            f" ({first['name']}: {first['skip_reason']})",
            "run it where pypi.org answers, not a mirror without its vulnerabilities",
        ]
    return 0, [f"{len(packages)} packages, no known vulnerability"]


def main() -> None:
    """Audit requirements files."""
    files = [word for path in sys.argv[1:] or ["requirements.txt"] for word in ("-r", path)]
    ended = subprocess.run(
        [sys.executable, *AUDIT, *files], capture_output=True, text=True, check=False
    )
    try:
        code, lines = judge(json.loads(ended.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        reason = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        code, lines = UNREACHABLE, [f"not reachable: {reason}"]
    print("\n".join(f"known vulnerabilities: {line}" for line in lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
