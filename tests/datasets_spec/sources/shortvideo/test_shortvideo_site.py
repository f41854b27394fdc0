"""The site of ShortVideo: its login, three connections, HTTP 502 now and then, redirects."""

import pytest

from datasets_spec.errors import ConfigConflictError, DownloadError
from datasets_spec.login import login_from_environment, split_login
from datasets_spec.prepare import prepare
from datasets_spec.sources import shortvideo
from datasets_spec.spec import PrepareConfig

NOON = 1663286400
TABLE = "interaciton_filtered.csv"
TABLE_ONLY = PrepareConfig(k_user=1, k_item=1, media=())
SECRETS = ("p@ss", "p%40ss", "wörd", "videodata")


@pytest.fixture
def table(tmp_path, row, write_table):
    """Bytes of a table of two users and twelve videos of two seconds."""
    rows = [row(user, pid, NOON + pid) for user in (1, 2) for pid in range(1, 13)]
    return write_table(tmp_path / "table.csv", rows).read_bytes()


def assert_no_trace(root, text):
    written = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    for secret in SECRETS:
        assert secret not in text
        assert secret.encode() not in written


@pytest.mark.parametrize("place", ["environment", "source", "netrc"])
def test_the_login_is_used_and_leaves_no_trace(tmp_path, make_site, table, caplog, monkeypatch, place):
    site = make_site(files={TABLE: table})
    source = site.url
    if place == "environment":
        monkeypatch.setenv("REELSTORE_SHORTVIDEO_USER", "videodata")
        monkeypatch.setenv("REELSTORE_SHORTVIDEO_PASSWORD", "p@ss:wörd/#1")
    elif place == "source":
        source = site.with_login()
        monkeypatch.setenv("REELSTORE_SHORTVIDEO_USER", "another")  # what is said now counts more
        monkeypatch.setenv("REELSTORE_SHORTVIDEO_PASSWORD", "one")
    else:
        netrc = tmp_path / "home" / ".netrc"
        netrc.write_text('machine 127.0.0.1 login videodata password "p@ss:wörd/#1"\n', encoding="utf-8")
        netrc.chmod(0o600)
    with caplog.at_level("DEBUG"):
        prepared = prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=source)
    assert prepared.n_items == 12
    assert site.asked[0].path == TABLE
    assert None not in [asked.authorization for asked in site.asked]
    assert_no_trace(tmp_path / "root", caplog.text + repr(split_login(source)))


def test_without_a_login_one_error_says_how_to_give_one(tmp_path, make_site, table):
    site = make_site(files={TABLE: table})
    with pytest.raises(DownloadError) as caught:
        prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)
    assert str(caught.value) == (
        f"{site.url} answered HTTP 401 Unauthorized: no login was sent. Set REELSTORE_SHORTVIDEO_USER and "
        "REELSTORE_SHORTVIDEO_PASSWORD to the login that stands in the publisher's README "
        "(https://github.com/tsinghua-fib-lab/ShortVideo_dataset), or put `machine HOST login USER password PASSWORD` "
        "into ~/.netrc, or pass source=http://USER:PASSWORD@HOST/…"
    )
    assert len(site.asked) == 1
    assert not (tmp_path / "root" / "prepared" / "shortvideo").exists()


@pytest.mark.parametrize(
    ("place", "named"),
    [("environment", "REELSTORE_SHORTVIDEO_USER and REELSTORE_SHORTVIDEO_PASSWORD"), ("source", "source=")],
)
def test_a_refused_login_is_named_by_its_place_and_not_shown(tmp_path, make_site, monkeypatch, place, named):
    site = make_site()
    source = site.url.replace("http://", "http://videodata:wrong-one@")
    if place == "environment":
        source = site.url
        monkeypatch.setenv("REELSTORE_SHORTVIDEO_USER", "videodata")
        monkeypatch.setenv("REELSTORE_SHORTVIDEO_PASSWORD", "wrong-one")
    with pytest.raises(DownloadError, match=f"401 Unauthorized: the login of {named} was refused. Set") as caught:
        prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=source)
    assert "wrong-one" not in str(caught.value)
    assert "videodata" not in str(caught.value)


def test_a_login_that_is_refused_for_videos_does_not_knock_for_each(tmp_path, make_site, table, login, monkeypatch):
    site = make_site(files={TABLE: table})
    prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)
    (tmp_path / "root" / "raw" / "shortvideo" / "category_cn_en.csv").write_text(
        "category_id,category_name_cn,category_name_en\n1350,赶海,Beachcombing\n", encoding="utf-8"
    )
    site.forget()
    monkeypatch.setenv("REELSTORE_SHORTVIDEO_PASSWORD", "changed")
    config = TABLE_ONLY.model_copy(update={"media": ("video",)})
    with pytest.raises(DownloadError, match=r"401 Unauthorized: the login of .* was refused"):
        prepare("shortvideo", root=tmp_path / "root", config=config)
    assert {asked.path.partition("/")[0] for asked in site.asked} == {"raw_file"}
    assert len(site.asked) <= 3


def test_three_connections_and_no_more(tmp_path, make_site, table, login, clip):
    ids = range(1, 13)
    files = {f"raw_file/{pid}.mp4": clip(2.0) for pid in ids}
    files |= {f"{kind}/{pid}.txt": b"text" for pid in ids for kind in ("title_en", "asr_en")}
    names = "category_id,category_name_cn,category_name_en\n1350,赶海,Beachcombing\n".encode()
    site = make_site(files=files | {TABLE: table, "category_cn_en.csv": names})
    prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)
    site.forget()
    site.gather = 3  # nothing is answered before three are there
    config = TABLE_ONLY.model_copy(update={"media": ("video",)})
    prepared = prepare("shortvideo", root=tmp_path / "root", config=config)
    assert len(prepared.media("video")) == 12
    assert len(site.asked) == 36
    assert site.most == shortvideo.CONNECTIONS == 3


def test_repeated_502_are_waited_out(tmp_path, make_site, table, login, clip):
    site = make_site(
        files={TABLE: table, "raw_file/1.mp4": clip(2.0)},
        statuses={TABLE: [502, 502], "raw_file/1.mp4": [502]},
    )
    config = TABLE_ONLY.model_copy(update={"media": ("video",), "limit": 1})
    prepared = prepare("shortvideo", root=tmp_path / "root", config=config, source=site.url)
    assert [item_id for item_id, _ in prepared.media("video")] == ["1"]
    assert [asked.path for asked in site.asked].count(TABLE) == 3


def test_the_site_is_given_half_a_minute_for_each_video():
    retry = shortvideo.TRANSFER.retry
    waits = [min(retry.max_delay, retry.first_delay * 2**failed) for failed in range(retry.attempts - 1)]
    assert sum(waits) == 31.5


def test_a_broken_download_goes_on_where_it_broke(tmp_path, make_site, table, login):
    site = make_site(files={TABLE: table}, cuts={TABLE: 500})
    prepared = prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)
    assert prepared.n_items == 12
    asked = [(asked.range, asked.authorization is None) for asked in site.asked if asked.path == TABLE]
    assert asked == [(None, False), ("bytes=500-", False)]


def test_a_redirect_on_the_site_keeps_the_login(tmp_path, make_site, table, login):
    site = make_site(files={"moved/here.csv": table}, redirects={TABLE: "/moved/here.csv"})
    assert prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url).n_items == 12


def test_a_redirect_to_another_host_does_not_carry_the_login(tmp_path, make_site, table, login):
    other = make_site(files={"here.csv": table}, login=False)
    site = make_site(redirects={TABLE: f"{other.url}/here.csv"})
    assert prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url).n_items == 12
    assert [asked.authorization for asked in other.asked] == [None]


def test_a_mirror_does_not_get_the_login(tmp_path, make_site, table, login):
    site, mirror = make_site(), make_site(files={TABLE: table}, login=False)
    config = TABLE_ONLY.model_copy(update={"base_url": site.url, "mirrors": (mirror.url,)})
    assert prepare("shortvideo", root=tmp_path / "root", config=config).n_items == 12
    assert {asked.authorization for asked in mirror.asked} == {None}
    assert None not in [asked.authorization for asked in site.asked]


def test_a_mirror_helps_where_the_login_is_refused(tmp_path, make_site, table):
    site, mirror = make_site(), make_site(files={TABLE: table}, login=False)
    config = TABLE_ONLY.model_copy(update={"base_url": site.url, "mirrors": (mirror.url,)})
    assert prepare("shortvideo", root=tmp_path / "root", config=config).n_items == 12
    assert len(site.asked) == 1


def test_the_names_of_the_table_are_tried_in_turn_and_what_is_there_is_used(tmp_path, make_site, table, login):
    site = make_site(files={"interaction.csv": table})
    prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)
    assert list(dict.fromkeys(asked.path for asked in site.asked)) == [
        *("interaciton_filtered.csv", "interaciton.csv", "interaction.csv"),
        *("category_cn_en.csv", "categories_cn_en.csv"),
    ]
    site.forget()
    prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY)
    assert {asked.path for asked in site.asked} == {"category_cn_en.csv", "categories_cn_en.csv"}


def test_a_site_without_the_table_is_one_error_that_names_what_was_tried(tmp_path, make_site, login):
    site = make_site()
    with pytest.raises(DownloadError, match=r"(?s)expected one of interaciton_filtered.csv, .* in .*HTTP 404"):
        prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)


def test_tables_of_another_address_are_forgotten(tmp_path, make_site, table, login, row, write_table):
    first = make_site(files={"interaction.csv": table})
    second = make_site(files={TABLE: write_table(tmp_path / "b.csv", [row(1, 99, NOON)]).read_bytes()})
    assert prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=first.url).n_items == 12
    assert prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=second.url).n_items == 1
    assert not (tmp_path / "root" / "raw" / "shortvideo" / "interaction.csv").exists()


@pytest.mark.parametrize("given", ["USER", "PASSWORD"])
def test_half_a_login_in_the_environment_is_refused(tmp_path, make_site, monkeypatch, given):
    make_site()
    monkeypatch.setenv(f"REELSTORE_SHORTVIDEO_{given}", "half-of-it")
    with pytest.raises(ConfigConflictError, match=f"REELSTORE_SHORTVIDEO_{given} is set and .* is not") as caught:
        login_from_environment(shortvideo.LOGIN)
    assert "half-of-it" not in str(caught.value)


@pytest.mark.parametrize(
    "source", ["videodata:p@ss-1@host/x", "ftp://videodata:p@ss-1@host/x", "http://videodata:p[ss-1@host/x"]
)
def test_a_login_in_a_source_that_is_no_address_is_not_shown(tmp_path, source):
    with pytest.raises(ConfigConflictError, match=r"source: expected a folder or .*not shown") as caught:
        prepare("shortvideo", root=tmp_path, config=TABLE_ONLY, source=source)
    assert "ss-1" not in str(caught.value)


def test_a_malformed_netrc_is_named_by_its_line_and_not_shown(tmp_path, make_site, table):
    site = make_site(files={TABLE: table})
    (tmp_path / "home" / ".netrc").write_text("machine 127.0.0.1\nlogin videodata secret-1 secret-2\n")
    with pytest.raises(ConfigConflictError, match=r"\.netrc, line \d: expected `machine HOST login USER") as caught:
        prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=site.url)
    assert "secret" not in str(caught.value)


def test_a_password_in_a_recorded_address_is_refused(tmp_path):
    config = TABLE_ONLY.model_copy(update={"base_url": "http://user:secret@example.org/data"})
    with pytest.raises(ConfigConflictError, match=r"must not carry a password \(at http://example.org/data\)"):
        prepare("shortvideo", root=tmp_path, config=config)
