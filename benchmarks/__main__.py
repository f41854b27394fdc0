"""Run all benchmarks, or the named ones: ``python -m benchmarks [decode kcore …]``."""

import pkgutil
import subprocess
import sys

import benchmarks


def main() -> int:
    """Run each benchmark in a process of its own, so that none inherits another's memory or threads."""
    present = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_")
    wanted = sys.argv[1:] or present
    unknown = sorted(set(wanted) - set(present))
    if unknown:
        sys.stderr.write(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(present)}\n")
        return 2
    codes: list[int] = []
    for name in wanted:
        print(f"== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
