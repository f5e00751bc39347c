"""Where the config lies, how it is read, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.daemon.domain.config import Config, Fake, Models, Server
from inferd.daemon.system.settings import (
    ConfigError,
    convert,
    find_config,
    load_config,
    model_folders,
    pull_folder,
    with_overrides,
)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# where


def test_the_named_file_wins_even_when_it_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "inferd" / "inferd.toml", "")
    named = tmp_path / "mine.toml"
    assert find_config(named, {"XDG_CONFIG_HOME": str(tmp_path)}) == named


def test_the_users_file_comes_from_xdg_config_home_before_home(tmp_path: Path) -> None:
    in_home = write(tmp_path / "home" / ".config" / "inferd" / "inferd.toml", "")
    home = {"HOME": str(tmp_path / "home")}
    assert find_config(None, home) == in_home
    in_xdg = write(tmp_path / "xdg" / "inferd" / "inferd.toml", "")
    assert find_config(None, home | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}) == in_xdg
    assert find_config(None, home | {"XDG_CONFIG_HOME": ""}) == in_home


def test_only_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "inferd" / "inferd.toml").mkdir(parents=True)
    found = find_config(None, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert found is None or found.parts[1] == "etc"


def test_a_home_that_cannot_be_looked_into_is_no_error() -> None:
    found = find_config(None, {"HOME": "/" + "x" * 5000})
    assert found is None or found.parts[1] == "etc"


# how


def test_no_file_gives_the_defaults() -> None:
    assert load_config(None) == Config()


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "c.toml", "")) == Config()


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    text = """
        log_level = "debug"
        [server]
        address = "unix:/tmp/ö.sock"
        drain_s = 3
        [models]
        folders = ["/a", "/b"]
        [models.defaults]
        slots = 4
        [models.model.demo]
        keep_alive_s = -1
        [models.model."qwen2.5-0.5b"]
        kv_type = "q8_0"
        [fake]
        enabled = true
    """
    config = load_config(write(tmp_path / "c.toml", text))
    assert (config.log_level, config.server.address, config.server.drain_s) == ("debug", "unix:/tmp/ö.sock", 3.0)
    assert config.models.folders == ("/a", "/b")
    assert config.models.defaults.slots == 4
    assert config.models.by_name["demo"].keep_alive_s == -1.0
    assert config.models.by_name["qwen2.5-0.5b"].kv_type == "q8_0"
    assert config.fake.enabled


# what is wrong


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.toml") == "No such file or directory"


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "Is a directory"


def test_bytes_that_are_not_text_are_named_by_their_place(tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "c.toml", b"# caf\xe9\n")) == "not UTF-8 at byte 5"


@pytest.mark.parametrize("text", ["[server", "a = ", "x = 1\nx = 2", "server = {", "\0"])
def test_what_is_not_toml_names_the_line(tmp_path: Path, text: str) -> None:
    assert "line" in refusal(write(tmp_path / "c.toml", text)) or "end of document" in refusal(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "`the top level`: object contains unknown field `colour`"),
        ("log_level = 'loud'", "`log_level`: invalid enum value 'loud'"),
        ("server = 3", "`server`: expected `object`, got `int`"),
        ("[server]\ncolour = 1", "`server`: object contains unknown field `colour`"),
        ("[server]\naddress = 1", "`server.address`: expected `str`, got `int`"),
        ("[server]\ndrain_s = -1", "`server.drain_s`: expected `float` >= 0.0"),
        ("[server]\ndrain_s = nan", "`server.drain_s`: expected `float` >= 0.0"),
        ("[queue]\nmax_requests = 0", "`queue.max_requests`: expected `int` >= 1"),
        ("[models]\nfolders = ['/a', 3]", "`models.folders[1]`: expected `str`, got `int`"),
        ("[models]\nmodel = 3", "`models.model`: expected `object`, got `int`"),
        ("[models.defaults]\nslots = 65", "`models.defaults.slots`: expected `int` <= 64"),
        ("[models.model]\ndemo = 3", "`models.model.demo`: expected `object`, got `int`"),
        ("[models.model.demo]\nslots = 0", "`models.model.demo.slots`: expected `int` >= 1"),
        ("[models.model.demo]\ncolour = 0", "`models.model.demo`: object contains unknown field `colour`"),
        ("[models.model.a]\nslots = 1\n[models.model.b]\nslots = 0", "`models.model.b.slots`: expected `int` >= 1"),
        ("[models.model.'q-0.5b']\nkv_type = 'q9'", "`models.model.q-0.5b.kv_type`: invalid enum value 'q9'"),
    ],
)
def test_a_wrong_field_is_named_by_its_exact_path(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(write(tmp_path / "c.toml", text)) == message


def test_a_wrong_tenant_is_named(tmp_path: Path) -> None:
    text = '[tenant."team-a"]\nmax_requests = 1\n[tenant.b]\nmax_tokens = 0\n'
    assert refusal(write(tmp_path / "c.toml", text)).startswith("`tenant.b.max_tokens`: ")


def test_the_first_of_two_wrong_models_is_named() -> None:
    table = {"models": {"model": {"a": {}, "b": {"threads": 0}, "c": {"slots": 0}}}}
    with pytest.raises(ConfigError, match=r"`models\.model\.b\.threads`"):
        convert(table, "here")


# the command line over the file


FILE = Config(
    server=Server(address="unix:/file.sock", drain_s=3.0),
    models=Models(folders=("/file",)),
    fake=Fake(tokens_per_s=5.0, load_s=2.0),
)


def test_without_options_the_file_stands() -> None:
    assert with_overrides(FILE) == FILE


def test_the_command_line_wins_and_the_rest_of_the_file_stays() -> None:
    config = with_overrides(FILE, address="unix:/mine.sock")
    assert config.server == Server(address="unix:/mine.sock", drain_s=3.0)
    assert config.models == FILE.models


def test_folders_of_the_command_line_come_first() -> None:
    assert with_overrides(FILE, models=["/one", "/two"]).models.folders == ("/one", "/two", "/file")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fake": True}, Fake(enabled=True, tokens_per_s=5.0, load_s=2.0)),
        ({"fake_tokens_per_s": 9.0}, Fake(enabled=True, tokens_per_s=9.0, load_s=2.0)),
        ({"fake_tokens_per_s": 0.0}, Fake(enabled=True, tokens_per_s=0.0, load_s=2.0)),
        ({"fake": False}, FILE.fake),
    ],
)
def test_a_rate_alone_also_asks_for_the_fake(options: dict[str, float], expected: Fake) -> None:
    assert with_overrides(FILE, **options).fake == expected  # type: ignore[arg-type]


# folders


def test_where_models_are_pulled_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/inferd")
    assert pull_folder(Config()) == Path("/var/lib/inferd/models")
    assert pull_folder(Config(models=Models(folders=("/a", "/b")))) == Path("/a")
    assert pull_folder(Config(models=Models(folders=("/a",), pull_folder="/c"))) == Path("/c")
    with pytest.raises(ConfigError, match=r"`models\.pull_folder`"):
        pull_folder(Config(models=Models(pull_folder="~nobody-has-this-name/x")))


def test_what_is_pulled_is_looked_for_once() -> None:
    assert model_folders(Config(models=Models(folders=("/a", "/b")))) == [Path("/a"), Path("/b")]
    assert model_folders(Config(models=Models(folders=("/a",), pull_folder="/c"))) == [Path("/a"), Path("/c")]


@pytest.mark.parametrize(
    "endpoint", ["", "ftp://x", "https://", "https://user:secret@x", "https://x/?q", "https://x#y", "file:///etc", "x"]
)
def test_an_address_of_a_hub_is_one_of_the_web_without_secrets(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"`hub\.endpoint`"):
        convert({"hub": {"endpoint": endpoint}}, "x")


def test_a_mirror_may_have_a_path() -> None:
    assert convert({"hub": {"endpoint": "http://mirror:8080/hf"}}, "x").hub.endpoint == "http://mirror:8080/hf"
