"""Run folders at URLs: what the driver wrote is there, comes back elsewhere, and only one driver writes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from search.folder import lock as lock_module
from search.folder import mirror as mirror_module
from search.folder.lock import ObjectLock, ObjectNote, owner
from search.folder.mirror import Mirror, local_folder
from search.folder.place import folder_of, held_folder, readable_folder
from spaces.errors import UserError


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield (tmp_path / "bucket" / "run").as_uri()
        return
    place = f"memory://bucket-{uuid4().hex}/run"
    yield place
    fsspec.filesystem("memory").rm(place.removeprefix("memory:/").rpartition("/")[0], recursive=True)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.0)
    monkeypatch.setattr(lock_module, "BEAT_S", 0.05)
    monkeypatch.setattr(lock_module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(mirror_module, "PUSH_EVERY_S", 0.05)
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))


def never(sentence: str) -> None:
    raise AssertionError(sentence)


def there(url: str) -> dict[str, str]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    names = {path: str(path).removeprefix(root).lstrip("/") for path in fs.find(root)}
    return {name: fs.cat_file(path).decode() for path, name in names.items() if not name.startswith((".lock", ".sess"))}


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_files_are_there_while_the_search_runs_and_all_of_them_at_its_end(url: str) -> None:
    with held_folder(url, never) as folder:
        write(folder, trials_jsonl="1\n", checkpoints__t0__state="x", ray__junk="no", plans__a_json="{}")
        seen = threading.Event()
        for _ in range(200):
            if "trials.jsonl" in there(url) or seen.wait(0.05):
                break
        assert there(url) == {"trials.jsonl": "1\n", "checkpoints/t0/state": "x", "plans/a.json": "{}"}
        (folder / "checkpoints" / "t0" / "state").unlink()
        write(folder, trials_jsonl="1\n2\n", _run_json_partial="half")
    assert there(url) == {"trials.jsonl": "1\n2\n", "plans/a.json": "{}"}


def test_another_machine_gets_it_back_and_the_same_one_keeps_what_it_has_more(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_folder(url, never) as folder:
        write(folder, trials_jsonl="1\n")
    write(folder, trials_jsonl="1\n2\n")  # the driver was killed before this was sent
    with held_folder(url, never) as folder:
        assert (folder / "trials.jsonl").read_text() == "1\n2\n"
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "elsewhere"))
    with held_folder(url, never) as other:
        assert other != folder
        assert (other / "trials.jsonl").read_text() == "1\n2\n"
        write(other, trials_jsonl="1\n2\n3\n")
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "cache"))
    write(folder, trials_jsonl="1\n2\nnever seen by anybody\n")
    with held_folder(url, never) as folder:
        assert (folder / "trials.jsonl").read_text() == "1\n2\n3\n"


def test_a_second_search_is_refused_with_host_process_and_heartbeat(url: str) -> None:
    with (
        held_folder(url, never),
        pytest.raises(UserError, match=r"run\.dir: .* is in use by process \d+ on .* \(last heartbeat 20"),
        held_folder(url, never),
    ):
        pass
    with held_folder(url, never):
        pass


def note_of(url: str) -> ObjectNote:
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root, exist_ok=True)
    return ObjectNote(fs, f"{root}/.lock", url)


def test_the_lock_of_a_dead_process_and_of_a_silent_host_is_taken(url: str) -> None:
    note = note_of(url)
    for left in ({"host": "elsewhere", "pid": 1, "token": "a", "beat": 3}, {"pid": 2**22 + 1}):
        note.write(json.dumps({"host": lock_module.platform.node(), "token": "b"} | left))
        lock = ObjectLock(note)
        lock.acquire()
        lock.release()
        assert owner(note) == {}
    note.write("damaged {")
    ObjectLock(note).acquire()


def test_a_heartbeat_that_moves_on_another_host_refuses(url: str) -> None:
    note, stop = note_of(url), threading.Event()

    def alive() -> None:
        beat = 0
        while not stop.wait(0.02):
            beat += 1
            note.write(json.dumps({"host": "elsewhere", "pid": 1, "token": "a", "beat": beat}))

    thread = threading.Thread(target=alive)
    thread.start()
    try:
        while not owner(note):
            stop.wait(0.01)
        with pytest.raises(UserError, match="in use by process 1 on elsewhere"):
            ObjectLock(note).acquire()
    finally:
        stop.set()
        thread.join()


def test_a_driver_whose_lock_was_taken_over_is_told(url: str) -> None:
    told: list[str] = []
    note = note_of(url)
    lock = ObjectLock(note, told.append)
    lock.acquire()
    note.write(json.dumps({"host": "elsewhere", "pid": 7, "token": "other", "beat": 1}))
    for _ in range(100):
        if told:
            break
        threading.Event().wait(0.02)
    lock.release()
    assert "taken over by process 7 on elsewhere" in told[0]
    assert owner(note)["token"] == "other"


def cut_after(calls: int, get_file: Callable[..., None]) -> Callable[..., None]:
    """Return ``get_file`` as it is on a network that fails after so many files."""
    left = [calls]

    def cut(*given: object, **rest: object) -> None:
        if not left[0]:
            raise OSError("no route to host")
        left[0] -= 1
        get_file(*given, **rest)

    return cut


def test_a_pull_that_was_cut_short_deletes_nothing_and_is_done_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"checkpoints/t0/state": "x", "plans/a.json": "{}", "trials.jsonl": "1\n"}
    with held_folder(url, never) as folder:
        write(folder, trials_jsonl="1\n", checkpoints__t0__state="x", plans__a_json="{}")
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "elsewhere"))
    fs, _ = fsspec.core.url_to_fs(url)
    for calls in range(1, 4):
        with monkeypatch.context() as patch:
            patch.setattr(type(fs), "get_file", cut_after(calls, type(fs).get_file))
            with pytest.raises(UserError, match=r"cannot be read \(no route"), held_folder(url, never):
                pass
        assert there(url) == whole
    with held_folder(url, never) as folder:
        assert (folder / "trials.jsonl").read_text() == "1\n"
    assert there(url) == whole


def test_a_driver_that_slept_through_anothers_whole_search_writes_nothing_over_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    note = note_of(url)
    lock = ObjectLock(note, told.append)
    lock.acquire()
    heart = lock._heart
    assert heart is not None
    heart._stop.set()  # suspended, as far as another host can see
    heart._thread.join()
    mirror = Mirror(url, local_folder(url), lock.held)
    mirror.pull()
    write(mirror.folder, trials_jsonl="1\n")
    note.write(json.dumps({"host": "elsewhere", "pid": 7, "token": "other", "beat": 1}))
    note.fs.pipe_file(note.path.replace(".lock", "trials.jsonl"), b"1\n2\n")
    for text in (json.dumps({"host": "elsewhere", "pid": 7, "token": "other", "beat": 2}), ""):
        note.write(text)
        assert mirror.push() == 0
        mirror.close()
        heart._stop.clear()
        told.clear()
        heart._run()
        assert len(told) == 1
    lock.release()
    assert owner(note) == {}
    assert there(url) == {"trials.jsonl": "1\n2\n"}


def test_a_heart_outlives_every_error_of_the_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note = note_of(url)
    lock = ObjectLock(note, never)
    lock.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(note, "write", lambda text: (_ for _ in ()).throw(RuntimeError("no endpoint")))
        threading.Event().wait(0.2)
    before = owner(note)["beat"]
    for _ in range(100):
        if owner(note).get("beat", before) > before:
            break
        threading.Event().wait(0.02)
    assert owner(note)["beat"] > before
    lock.release()


def test_a_number_that_is_another_process_by_now_does_not_hold_the_lock(url: str) -> None:
    note = note_of(url)
    note.write(json.dumps({"host": lock_module.platform.node(), "pid": os.getppid(), "token": "b", "beat": 1}))
    lock = ObjectLock(note)
    lock.acquire()
    lock.release()


def test_what_cannot_be_sent_is_said_and_sent_when_it_can(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(url, local_folder(url))
    mirror.pull()
    write(mirror.folder, trials_jsonl="1\n")

    def down(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(mirror.fs, "put_file", down)
        with pytest.raises(UserError, match=r"run\.dir: .* cannot be written \(no route to host\)"):
            mirror.start()
        with pytest.raises(RuntimeError, match=r"no route to host.*the run is whole in"):
            mirror.close()
    mirror.close()
    assert there(url) == {"trials.jsonl": "1\n"}


def test_a_url_nobody_can_open_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"run\.dir: nonsense://x cannot be opened"), held_folder("nonsense://x", never):
        pass


def test_files_at_a_url_that_no_search_wrote_are_left_alone(url: str) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(f"{root}/teacher", exist_ok=True)
    fs.pipe_file(f"{root}/teacher/model.safetensors", b"mine")
    with pytest.raises(UserError, match=r"run\.dir: .* holds teacher and is no run"), held_folder(url, never):
        pass
    assert there(url) == {"teacher/model.safetensors": "mine"}


def test_files_beside_a_run_may_lie_in_its_folder_from_the_start(tmp_path: Path) -> None:
    write(tmp_path, nohup_out="what the shell writes")
    with held_folder(str(tmp_path), never):
        write(tmp_path, config_yaml="of the run")
    with held_folder(str(tmp_path), never):
        assert (tmp_path / "config.yaml").exists()


def test_a_folder_is_its_own_place(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path)) == tmp_path
    assert folder_of("memory://a/run").name.startswith("run-")
    with held_folder(str(tmp_path / "run"), never) as folder:
        assert folder == tmp_path / "run"


def test_a_run_at_a_url_is_read_from_a_copy_and_from_the_drivers_own_folder_where_it_is(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_folder(url, never) as folder:
        write(folder, trials_jsonl="1\n", checkpoints__t0__state="large")
    assert readable_folder(url) == folder
    monkeypatch.setenv("PAREDOWN_CACHE", str(tmp_path / "elsewhere"))
    copy = readable_folder(url)
    assert (copy / "trials.jsonl").read_text() == "1\n"
    assert not (copy / "checkpoints").exists()
    assert readable_folder(str(tmp_path)) == tmp_path
