"""The page's server: what it answers, to whom, and that nobody else can decide."""

import csv
import io
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from looked_at import COUNT, FILES, looked_at, on_disk

from mtcm_nerfstudio import decisions as decisions_file
from mtcm_nerfstudio.viewer.capture_scene import build_scene
from mtcm_nerfstudio.viewer.colours import UNKNOWN, colours_of, shades_of
from mtcm_nerfstudio.viewer.session import Session
from mtcm_nerfstudio.viewer.table.server import TableServer
from mtcm_nerfstudio.viewer.thumbnail_cache import ThumbnailCache

HOST = "127.0.0.1"


@pytest.fixture
def result(tmp_path):
    return looked_at(tmp_path)


@contextmanager
def serving(result, port=7320):
    session = Session(result.output_dir / decisions_file.FILE_NAME)
    server = TableServer(session, ThumbnailCache(build_scene(result.capture).images), HOST, port, "a <capture>")
    server.start(1, lambda: None, lambda how: None)
    try:
        yield server
    finally:
        server.stop()


def get(server, path, **headers) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(server.address + path, headers=headers), timeout=10) as answer:
        return answer.read()


@contextmanager
def listening(server):
    """What reads the next news that a page is told."""
    news = urllib.request.urlopen(server.address + "/news", timeout=10)

    def heard():
        line = news.readline()
        assert news.readline() == b"\n"
        return json.loads(line.removeprefix(b"data: "))

    try:
        yield heard
    finally:
        news.close()


def rows_of(server) -> list[dict]:
    with listening(server) as heard:
        return list(heard()["rows"].values())


def act(server, secret=None, **asked) -> None:
    headers = {"X-MTCM": server.secret if secret is None else secret}
    body = json.dumps(asked).encode()
    urllib.request.urlopen(urllib.request.Request(server.address + "/act", body, headers), timeout=10).close()


def status(do) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        do()
    refused.value.close()
    return refused.value.code


def test_the_page_holds_its_facts_and_the_name_cannot_break_out(result):
    with serving(result) as server:
        page = get(server, "/").decode()
        facts = json.loads(re.search(r'json">(.*?)</script>', page, re.S)[1])
        assert facts["name"] == "a <capture>" and facts["secret"] == server.secret and "<capture>" not in page
        assert b"begin()" in get(server, "/table.js") and b"grid" in get(server, "/table.css")


def test_rows_and_csv_say_the_same_as_the_decisions(result):
    with serving(result) as server:
        rows = rows_of(server)
        assert [row["name"] for row in rows] == [frame.file_path for frame in result.decisions.frames]
        table = list(csv.DictReader(io.StringIO(get(server, "/frames.csv").decode())))
        assert [row["verdict"] for row in table] == [row["verdict"] for row in rows]
        assert [row["reason"] for row in table if row["verdict"] == "dropped"] == ["blur", "foreign"]


def test_a_decision_needs_the_secret_and_a_host_of_this_machine(result):
    with serving(result) as server:
        assert status(lambda: act(server, secret="guess", action="drop", frame=0)) == 403
        assert status(lambda: get(server, "/", Host="evil.example")) == 403
        assert on_disk(result, 0) == (True, "model")
        act(server, action="drop", frame=0)
        assert on_disk(result, 0) == (False, "person")
        act(server, action="undo")
        assert on_disk(result, 0) == (True, "model")


@pytest.mark.parametrize(
    "asked", [{"action": "explode"}, {"action": "drop", "frame": 999}, {"action": "select", "frame": "0"}, {"frame": 1},
              {"action": "threshold"}]
)  # fmt: skip
def test_what_there_is_not_is_refused_in_words(result, asked):
    with serving(result) as server:
        assert status(lambda: act(server, **asked)) == 400


def test_pictures_come_in_known_sizes_of_known_frames_and_no_other_file(result):
    (result.capture.root / FILES[5]).write_bytes(b"no picture")
    with serving(result) as server:
        assert get(server, "/picture?frame=0&side=96").startswith(b"\xff\xd8")
        refused = ("frame=5&side=96", "frame=99&side=96", "frame=-1&side=96", "frame=0&side=5000", "frame=a&side=96")
        assert [status(lambda q=query: get(server, f"/picture?{q}")) for query in refused] == [404, 404, 404, 404, 400]
        assert status(lambda: get(server, "/../transforms.json")) == 404


def test_news_begin_with_everything_and_go_on_with_what_changes(result):
    with serving(result) as server, listening(server) as heard:
        first = heard()
        assert len(first["rows"]) == COUNT and first["suggested"] == 2
        threading.Thread(target=act, args=(server,), kwargs={"action": "drop", "frame": 4}).start()
        changed = {}
        while "4" not in changed:
            changed |= heard()["rows"]
        assert set(changed) == {"4"} and changed["4"]["decided_by"] == "person"
        path = result.output_dir / decisions_file.FILE_NAME
        record = json.loads(path.read_text())
        record["frames"][6] |= {"inconsistency": 0.125, "label": "from the left"}
        path.write_text(json.dumps(record))
        server.session.look_again()
        changed = heard()["rows"]
        assert set(changed) == {"6"} and changed["6"]["inconsistency"] == 0.125 and changed["6"]["label"]


def test_a_decision_is_about_the_frame_that_is_named_wherever_another_page_looks(result):
    with serving(result) as server:
        server.session.select(7)
        act(server, action="drop", frame=2)
        assert on_disk(result, 2) == (False, "person") and on_disk(result, 7) == (True, "model")


def test_a_frame_that_is_kept_at_a_threshold_that_is_tried_out_has_no_reason(result):
    with serving(result) as server:
        server.session.preview_threshold(1.0)
        row = rows_of(server)[3]
        assert (row["verdict"], row["reason"]) == ("kept", "")
        server.session.preview_threshold(0.0)
        assert {row["reason"] for row in rows_of(server) if row["verdict"] == "dropped"} >= {"blur", "inconsistent"}


def test_only_this_machine_by_its_own_name_is_meant(result):
    session = Session(result.output_dir / decisions_file.FILE_NAME)
    server = TableServer(session, ThumbnailCache(()), "0.0.0.0", 7350, "a")
    try:
        for host in ("127.0.0.1:1", "192.168.1.7:7020", "[::1]:1", "localhost", f"{socket.gethostname()}:7350"):
            assert server.answers_to(host)
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", ""):
            assert not server.answers_to(host)
    finally:
        server.stop()


@pytest.mark.parametrize("said", ["Content-Length: -1", "Content-Length: 9999999", "Content-Length: x", "X-MTCM: \xff"])
def test_requests_that_make_no_sense_are_refused_and_the_terminal_stays_quiet(result, capfd, said):
    with serving(result) as server:
        with socket.create_connection((HOST, server.port), timeout=10) as connection:
            secret = "" if said.startswith("X-MTCM") else f"X-MTCM: {server.secret}\r\n"
            connection.sendall(f"POST /act HTTP/1.1\r\nHost: localhost\r\n{secret}{said}\r\n\r\n".encode("latin-1"))
            assert connection.recv(100).split()[1] in (b"400", b"403")
        for _ in range(5):
            with socket.create_connection((HOST, server.port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                connection.sendall(b"GET /table.js HTTP/1.1\r\n")
        assert b"begin()" in get(server, "/table.js")
    assert capfd.readouterr().err == ""


def test_an_address_of_ipv6_is_refused_in_words(result):
    session = Session(result.output_dir / decisions_file.FILE_NAME)
    with pytest.raises(ValueError, match="IPv4"):
        TableServer(session, ThumbnailCache(()), "::1", 7350, "a")


def test_a_port_that_is_taken_is_passed_over(result):
    with serving(result) as first, serving(result, first.port) as second:
        assert second.port > first.port
        assert b"begin()" in get(second, "/table.js")


def test_live_values_are_columns_once_there_are_any(result):
    with serving(result) as server:
        assert "weight" not in rows_of(server)[0]
        server.session.show_live({"weight": np.linspace(0, 1, COUNT), "residual": np.full(COUNT, np.nan)})
        row = rows_of(server)[-1]
        assert row["weight"] == 1.0 and row["residual"] is None
        assert get(server, "/frames.csv").decode().splitlines()[0].endswith("weight,residual")


def test_colours_follow_what_they_stand_for(result):
    session = Session(result.output_dir / decisions_file.FILE_NAME)
    by_verdict = colours_of(session.state, "verdict")
    assert len(set(by_verdict)) == 3 and by_verdict[3] == by_verdict[9] != by_verdict[0]
    assert set(colours_of(session.state, "weight")) == {UNKNOWN}
    assert shades_of(np.array([np.nan, 0.0, 1.0]))[0] == UNKNOWN
    assert len(set(shades_of(np.linspace(0, 1, 100)))) == 12
    by_time = colours_of(session.state, "time")
    assert by_time[0] != by_time[-1] and len(by_time) == COUNT
