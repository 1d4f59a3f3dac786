"""A push: what reaches the Hub, who may see it, and what is said when it does not go well."""

import huggingface_hub.constants
import pytest
from fake_hub import hub

from mic.errors import InputError, RunError
from mic.export.hub import push

TOKEN = "hf_aTokenThatNobodyShouldSee"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hub() as server:
        yield server


@pytest.fixture
def exported(tmp_path):
    (tmp_path / "out" / "1_Pooling").mkdir(parents=True)
    for name in ("README.md", "model.safetensors", "1_Pooling/config.json"):
        (tmp_path / "out" / name).write_bytes(f"content of {name}".encode())
    return tmp_path / "out"


def files(folder):
    inner = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in inner}


@pytest.mark.parametrize("public", [False, True])
def test_all_files_arrive_in_a_repository_that_is_private_unless_asked(
    fake, exported, public, capfd
):
    line = push(exported, "acme/small", public, fake.url)
    held = fake.repositories["acme/small"]
    assert held == {"private": not public, "files": files(exported)}
    assert line.endswith(f"{'for all to see' if public else 'private'}: commit aaaaaaaaaa")
    assert fake.tokens == {f"Bearer {TOKEN}"}
    printed = capfd.readouterr()
    assert TOKEN not in line + printed.out + printed.err


def test_a_public_repository_gets_nothing_unless_that_is_what_was_asked(fake, exported):
    fake.repositories["acme/small"] = {"private": False, "files": {}}
    with pytest.raises(InputError, match="--push acme/small: that repository is public; add --pub"):
        push(exported, "acme/small", False, fake.url)
    assert fake.repositories["acme/small"]["files"] == {}
    push(exported, "acme/small", True, fake.url)
    assert fake.repositories["acme/small"]["files"] == files(exported)


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_does_not_let_us_in_is_told_with_a_cure_and_without_the_token(
    fake, exported, status
):
    fake.refuse = status
    with pytest.raises(InputError, match=rf"answers {status}; log in with `hf auth login`") as seen:
        push(exported, "acme/small", False, fake.url)
    assert TOKEN not in str(seen.value)


def test_a_hub_out_of_reach_is_told_and_the_folder_stays(exported, monkeypatch):
    with pytest.raises(RunError, match=r"cannot be reached \(Offline.*out is written: try again"):
        push(exported, "acme/small", False)
    assert len(files(exported)) == 3
