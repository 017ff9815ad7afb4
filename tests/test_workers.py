"""Work side by side: every job is done in a process of its own, one thread each, and errors come
through."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mechreward.base import workers as _workers
from mechreward.base.errors import MechRewardError
from mechreward.base.workers import cores, side_by_side


def note(path: Path, words: str) -> None:
    """A job: who did it, with how many threads."""
    import torch

    path.write_text(f"{words} {os.getpid()} {torch.get_num_threads()}")


def fail(path: Path, words: str) -> None:
    raise MechRewardError(f"{words} went wrong.")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_workers, "cores", lambda: 2)


def test_every_job_is_done_elsewhere_with_one_thread(
    two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    jobs = [(tmp_path / f"{i}", f"job{i}") for i in range(3)]
    assert sorted(side_by_side(note, jobs)) == jobs
    said = [path.read_text().split() for path, _ in jobs]
    assert [words[0] for words in said] == ["job0", "job1", "job2"]
    assert {words[2] for words in said} == {"1"} and str(os.getpid()) not in {
        words[1] for words in said
    }
    assert os.environ["OMP_NUM_THREADS"] == "7" and "TQDM_DISABLE" not in os.environ


def test_an_error_comes_through_as_it_is_and_ends_the_work(two, tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(MechRewardError, match="this went wrong"):
        list(side_by_side(fail, [(tmp_path, "this")] * 50))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("most", [1, 2])
def test_what_follows_begins_when_it_may_and_in_order(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two chains of three: nothing begins before what it follows, and of what may begin the lowest
    rank does."""
    monkeypatch.setattr(_workers, "cores", lambda: most)

    def then(job: tuple) -> list[tuple]:
        name, step = job[1].split()
        return (
            [(tmp_path / f"{name}{int(step) + 1}", f"{name} {int(step) + 1}")] if step < "2" else []
        )

    done = list(
        side_by_side(
            note, [(tmp_path / f"{n}0", f"{n} 0") for n in "ab"], then, lambda job: -int(job[1][-1])
        )
    )
    words = [job[1] for job in done]
    assert sorted(words) == [f"{name} {step}" for name in "ab" for step in range(3)]
    for name in "ab":
        assert [one for one in words if one[0] == name] == [f"{name} {step}" for step in range(3)]
    if most == 1:
        assert words == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2"]


def test_one_core_needs_no_process(tmp_path: Path):
    jobs = [(tmp_path / "a", "a"), (tmp_path / "b", "b")]
    assert list(side_by_side(note, jobs)) == jobs  # tests/conftest.py says: one core
    assert {path.read_text().split()[1] for path, _ in jobs} == {str(os.getpid())}
    assert list(side_by_side(note, [])) == []


def test_there_is_a_core():
    assert cores() >= 1


def test_a_script_without_the_guard_is_told_so_in_one_line(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "import test_workers\n"
        "test_workers._workers.cores = lambda: 2\n"
        f"jobs = [(Path({str(tmp_path)!r}) / str(i), 'x') for i in range(3)]\n"
        "for job in test_workers.side_by_side(test_workers.note, jobs):\n"
        "    pass\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 1
    assert run.stderr.count("Traceback") == 1
    last = run.stderr.strip().split("\n")[-1]
    assert last.startswith("mechreward.base.errors.MechRewardError: ")
    assert "under `if __name__ == '__main__':`" in last
    assert not (tmp_path / "0").exists()


def wait(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc who is there")
def test_workers_end_with_the_process_that_began_them(tmp_path: Path):
    """Killed without a word, it can tell them nothing."""
    paths = [tmp_path / "a", tmp_path / "b"]
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_workers
if __name__ == "__main__":
    test_workers._workers.cores = lambda: 2
    jobs = [(Path(path),) for path in {[str(path) for path in paths]!r}]
    list(test_workers.side_by_side(test_workers.wait, jobs))
"""
    script = tmp_path / "first.py"
    script.write_text(code)
    first = subprocess.Popen([sys.executable, str(script)])

    def until(true: Callable[[], bool]) -> bool:
        for _ in range(600):
            if true():
                return True
            time.sleep(0.1)
        return False

    assert until(lambda: all(path.exists() and path.read_text() for path in paths))
    first.kill()
    first.wait()
    assert until(lambda: not any(alive(int(path.read_text())) for path in paths))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
