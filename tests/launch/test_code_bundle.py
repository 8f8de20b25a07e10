"""What `--code` sends: the same bytes for the same files, and no secret unless it is meant."""

import io
import os
import random
import string
import subprocess
import tarfile
from pathlib import Path

import pytest

from llm_jax.config import UserError
from llm_jax.launch import code
from llm_jax.launch.code import check_code, digest, pack
from llm_jax.launch.code_secrets import key_file, secrets_of

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "aB3dE5gH7j" * 3
PEM = (
    "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0B" * 4 + "\n-----END PRIVATE KEY-----"
)


@pytest.fixture
def folder(tmp_path):
    def write(**files):
        root = tmp_path / "code"
        for name, text in ({"pyproject.toml": ""} | files).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return write


def checked(root):
    heard = []
    check_code(root, heard.append)
    return heard


@pytest.mark.parametrize("broken", ["no git", "not listed"])
def test_what_git_does_not_list_is_not_sent(folder, monkeypatch, tmp_path, broken):
    """Else what .gitignore keeps out would go along."""
    root = folder(**{".gitignore": "keys.txt\n", "keys.txt": TOKEN})
    git = tmp_path / "git"
    if broken == "not listed":
        git.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership' >&2; exit 128\n")
        git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert [path.name for path in code.files_of(root)] == [
        ".gitignore",
        "keys.txt",
        "pyproject.toml",
    ]
    (root / ".git").mkdir()
    why = "git is not installed" if broken == "no git" else "dubious ownership"
    with pytest.raises(UserError, match=rf"{why}\).*without \.git"):
        pack(root)


def test_equal_files_make_equal_bytes(folder):
    root = folder(**{"a/b.py": "1", "run.sh": "2"})
    (root / "run.sh").chmod(0o755)
    first = digest(pack(root))
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    (root / "a/b.py").chmod(0o600)
    assert digest(pack(root)) == first
    with tarfile.open(fileobj=io.BytesIO(pack(root))) as tar:
        modes = {entry.name: entry.mode for entry in tar}
        times = {entry.mtime for entry in tar}
    assert modes == {"a/b.py": 0o644, "pyproject.toml": 0o644, "run.sh": 0o755}
    assert min(times) > 315532800  # zip files begin in 1980
    (root / "a/b.py").write_text("3")
    assert digest(pack(root)) != first


def test_links_and_what_git_ignores_stay_here(folder):
    root = folder(**{".gitignore": "keys/\n", "keys/k.txt": TOKEN, "a.py": "1"})
    (root / "link.py").symlink_to("/etc/hostname")
    subprocess.run(["git", "init", "-q", root], check=True)
    with tarfile.open(fileobj=io.BytesIO(pack(root))) as tar:
        assert tar.getnames() == [".gitignore", "a.py", "pyproject.toml"]
    assert "searched 3 files" in checked(root)[0]


def test_a_folder_that_is_too_large(folder, monkeypatch):
    monkeypatch.setattr(code, "MOST_BYTES", 10)
    with pytest.raises(UserError, match=r"have 11 bytes: a bundle has at most 10.*\.gitignore"):
        pack(folder(data="x" * 11))


SECRETS = {
    "a.py": f'login("{TOKEN}")',
    "deep/b.py": 'WANDB_API_KEY = "0123456789abcdef0123456789abcdef01234567"',
    "c.yaml": "db:\n  password: s3cr3t-pass\n",
    "d.json": '{"client_secret": "aB3dE5gH7j"}',
    "e.sh": "export HF_TOKEN=abcdef12345\n",
    "key.pem": PEM,
    "sa.json": '{"private_key": "' + PEM.replace("\n", "\\n") + '"}',
    "f.toml": 'url = "https://me:hunter2x@index/simple"',  # pragma: allowlist secret
    ".env": "A=1",
    "cfg/.env.prod": "A=1",
    "id_ed25519": "x",
    "store.p12": b"\0\1\2",
    "g.txt": f"é {TOKEN}",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_refused_and_not_repeated(folder, name):
    with pytest.raises(UserError) as error:
        checked(folder(**{name: SECRETS[name]}))
    told = str(error.value)
    assert name in told and "would go to every host" in told and ".gitignore" in told
    assert not any(secret in told for secret in (TOKEN, "0123456789", "s3cr3t", "aB3dE", "hunter2"))
    assert "\n" not in told


def test_of_many_three_are_shown(folder):
    with pytest.raises(UserError, match=r"a\.py:2 \(it holds a token\), .* and 2 others look like"):
        checked(folder(**{"a.py": "\n" + "\n".join(f"'{TOKEN}'" for _ in range(5))}))


HARMLESS = """
token = tokenizer.next_token(model)
api_key = os.environ["API_KEY"]
password=getpass()
hf_select_quant_linear_v2(model)
secret: Optional[str] = None
eos_token = "</s>"
next_token_probabilities = {"a1": 1}
url = "https://{user}:{password}@host"
url = re.compile(r"https?://(?:\\S+(?::\\S*)?@)?host")
url = "https://%s:%s@host" % (user, password)
-----BEGIN PRIVATE KEY-----
sha = "0123456789abcdef0123456789abcdef01234567"
access_token: "$HF_TOKEN"
credentials = "/run/secrets/key1.json"
"""


@pytest.mark.parametrize("suffix", [".py", ".yaml", ".md", ".sh"])
def test_code_without_secrets_is_sent(suffix):
    assert list(secrets_of(Path(f"a{suffix}"), HARMLESS)) == []


@pytest.mark.parametrize("mark", ["pragma: allowlist secret", "gitleaks:allow"])
def test_a_line_may_say_that_it_is_meant(folder, mark):
    root = folder(**{"a.py": f"x = 1\nexample = '{TOKEN}'  # {mark}\n"})
    assert checked(root) == [f"searched 2 files of {root} for secrets, and passed over 0 "
                             "(binary, or large)"]  # fmt: skip
    (root / "a.py").write_text(f"{(root / 'a.py').read_text()}again = '{TOKEN}'\n")
    with pytest.raises(UserError, match=r"a\.py:3 "):
        checked(root)


def test_what_was_not_searched_is_counted(folder):
    root = folder(**{"a.bin": b"\0" + TOKEN.encode(), "b.txt": "x" * (1 << 20) + TOKEN})
    assert "searched 1 file of" in checked(root)[0] and "passed over 2 " in checked(root)[0]


NAMES = {".env": True, ".env.example": False, "environment.py": False, "id_rsa.pub": False}


@pytest.mark.parametrize(("name", "is_one"), NAMES.items())
def test_names_of_key_files(name, is_one):
    assert key_file(name) is is_one


@pytest.mark.slow
def test_this_repository_can_be_sent():
    assert len(checked(ROOT)) == 1


def test_recall_on_values_of_random_letters():
    """Of 200 random passwords under names of secrets in settings and programs, all are found."""
    of, letters = random.Random(5), string.ascii_letters + string.digits + "-_.!#"
    lines = {".py": 'DB_PASSWORD = "{}"', ".yaml": "api_key: {}", ".env": "AUTH_TOKEN={}",
             ".json": '"client_secret": "{}"'}  # fmt: skip
    found = 0
    for i in range(200):
        value = "".join(of.choices(letters, k=18)) + "7x"
        suffix = list(lines)[i % 4]
        found += len(list(secrets_of(Path(f"a{suffix}"), lines[suffix].format(value)))) > 0
    assert found == 200
