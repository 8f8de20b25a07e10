"""Recall and false alarms of the guard, on names and values that were made up here."""

import base64
import random
import string
import uuid

import pytest

from llm_jax.config.secrets import HIDDEN, is_secret_name, redact, secret_in, secret_variable

NAMES = [
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_PAT",
    "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "PGPASSWORD", "MYSQL_PWD", "SSH_PRIVATE_KEY", "DB_PASS",
    "SLACK_WEBHOOK_URL", "SENTRY_DSN", "AZURE_STORAGE_SAS", "STORAGE_CONNECTION_STRING",
    "KEY_PASSPHRASE", "clientSecret", "dbpassword",
]  # fmt: skip
HARMLESS_NAMES = [
    "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "SORT_KEY", "KEY", "PATH", "PASSES", "COMPASS", "KEYS",
    "XLA_FLAGS", "BATCH_SIZE", "TOKENIZER_PATH", "MONKEY", "AUTHOR", "SECRETARY", "CACHE_KEY_SALT",
    "NCCL_DEBUG", "JAX_PLATFORMS", "PYTHONPATH",
]  # fmt: skip
WORDS = [
    "dense",
    "expert",
    "router",
    "layer",
    "large",
    "small",
    "base",
    "wiki",
    "mix",
    "run",
    "test",
]
URL = string.ascii_letters + string.digits + "_-"
HEX = "0123456789abcdef"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----"


def letters(of, count, alphabet=string.ascii_letters + string.digits):
    return "".join(of.choices(alphabet, k=count))


def names(of, count, between):
    return between.join(of.choices(WORDS, k=count))


def made_up_secrets(of):
    """Two hundred, of twenty kinds."""
    hook = "https://hooks.slack.com/services/T{}/B{}/{}"
    kinds = [
        lambda: "hf_" + letters(of, 34),
        lambda: of.choice(["ghp_", "gho_", "ghs_"]) + letters(of, 36),
        lambda: "github_pat_" + letters(of, 22) + "_" + letters(of, 59),
        lambda: "AKIA" + letters(of, 16, string.ascii_uppercase + string.digits),
        lambda: "sk-proj-" + letters(of, 48, URL),
        lambda: "sk-ant-api03-" + letters(of, 93, URL),
        lambda: f"xoxb-{of.randrange(10**11)}-{of.randrange(10**12)}-{letters(of, 24)}",
        lambda: "AIza" + letters(of, 35, URL),
        lambda: "ya29." + letters(of, 60, URL),
        lambda: f"eyJ{letters(of, 33, URL)}.eyJ{letters(of, 60, URL)}.{letters(of, 43, URL)}",
        lambda: "glpat-" + letters(of, 20, URL),
        lambda: f"postgresql://app:{letters(of, 12)}@db.example.com/data",
        lambda: f"https://{letters(of, 6)}:{letters(of, 20)}@pypi.example.com/simple",
        lambda: f"https://storage.example.com/x?X-Goog-Signature={letters(of, 64, HEX)}",
        lambda: PEM.format(letters(of, 64)),
        lambda: hook.format(letters(of, 8), letters(of, 8), letters(of, 24)),
        lambda: "sk_live_" + letters(of, 24),
        lambda: "Authorization: Bearer " + letters(of, 40),
        lambda: letters(of, 40, string.ascii_letters + string.digits + "/+"),  # as AWS makes them
        lambda: base64.b64encode(of.randbytes(32)).decode(),
    ]
    return [kinds[i % 20]() for i in range(200)]


def made_up_harmless(of):
    """Two hundred, of twenty kinds, many as random as a key."""
    image = "europe-docker.pkg.dev/my-project/images/llm-jax@sha256:"
    kinds = [
        lambda: "sha256:" + letters(of, 64, HEX),
        lambda: letters(of, 40, HEX),  # a commit
        lambda: letters(of, 64, HEX.upper()),
        lambda: str(uuid.UUID(int=of.getrandbits(128))),
        lambda: image + letters(of, 64, HEX),
        lambda: "/shared/" + names(of, 6, "/"),
        lambda: "gs://my-bucket/runs/" + names(of, 5, "-") + f"-{of.randrange(999)}",
        lambda: "--xla_force_host_platform_device_count=8 --xla_gpu_enable_triton_gemm=false",
        lambda: names(of, 6, " ").title().replace(" ", "") + str(of.randrange(99)),
        lambda: f"Llama-3.{of.randrange(9)}-{of.randrange(99)}B-Instruct-2026-11-26",
        lambda: f"2026-11-2{of.randrange(9)}T1{of.randrange(9)}:00:00Z",
        lambda: str(of.getrandbits(128)),
        lambda: "https://example.com/" + names(of, 4, "/") + "?page=2&size=100",
        lambda: "ssh://git@example.com:2222/team/repository.git",
        lambda: f"python3 -m trainer --steps {of.randrange(9999)} --learning-rate 3e-4 --name x",
        lambda: "sha384-" + base64.b64encode(of.randbytes(48)).decode(),
        lambda: ",".join(str(of.random()) for _ in range(4)),
        lambda: "projects/123456/secrets/hf-token/versions/latest",
        lambda: "export HF_TOKEN=$(gcloud secrets versions access latest --secret=hf)",
        lambda: "MAX_TOKENS=4096 WANDB_API_KEY_FILE=/run/secrets/wandb " + of.choice(WORDS),
    ]
    return [kinds[i % 20]() for i in range(200)]


def missed_and_alarms(seed):
    of = random.Random(seed)
    missed = [value for value in made_up_secrets(of) if not secret_variable("VALUE", value)]
    return missed, [value for value in made_up_harmless(of) if secret_variable("VALUE", value)]


def test_recall_and_false_alarms_of_names():
    assert [name for name in NAMES if not is_secret_name(name)] == []
    assert [name for name in HARMLESS_NAMES if secret_variable(name, "4096")] == []
    assert [name for name in HARMLESS_NAMES if secret_variable(name, "some-name")] == []


def test_recall_and_false_alarms_of_values():
    missed, alarms = missed_and_alarms(15)
    assert len(missed) <= 2, missed  # 99% of 200
    assert alarms == []


@pytest.mark.parametrize("seed", range(20))
def test_the_figures_hold_for_other_values(seed):
    missed, alarms = missed_and_alarms(seed)
    assert len(missed) <= 4 and len(alarms) <= 1, (missed, alarms)


@pytest.mark.parametrize(
    "value", ["/run/secrets/key.json", "$FROM_ABOVE", "projects/p/secrets/s/versions/1", "", "0"]
)
def test_where_a_secret_is_kept_is_none(value):
    assert secret_variable("GOOGLE_APPLICATION_CREDENTIALS", value) is None


@pytest.mark.parametrize(
    "line",
    [
        "export WANDB_API_KEY={}",
        "python3 train.py --api-key {}",
        "password: {}",
        "curl -H X-Auth-Token:{}",
        "machine github.com login me password {}",
        "HF_TOKEN={} python3",
    ],
)
def test_what_is_set_is_found_and_hidden(line):
    value = "correct-horse-battery"
    assert secret_in(line.format(value))
    assert redact(line.format(value)) == line.format(HIDDEN)


def test_a_key_of_several_lines_is_hidden_whole():
    assert redact(f"before\n{PEM.format('a b')}\nafter") == f"before\n{HIDDEN}\nafter"


def test_an_address_keeps_its_host():
    assert redact(f"postgres://me:{'secret'}@db/x") == f"postgres://{HIDDEN}@db/x"


def test_a_known_value_is_hidden_wherever_it_stands():
    assert redact("login with 0123456789 failed", ["0123456789"]) == f"login with {HIDDEN} failed"


@pytest.mark.parametrize(
    "line",
    [
        "step 10/40  loss 3.2181  validation 3.3012  1,204 tokens/s  tokens: 81920  MFU 41%",
        "error: HF_TOKEN: the variable is not set, and the token is needed.",
        'eos_token: "</s>", num_tokens=bfloat16, token=3, bos_token=<s>',
        "no flag --wandb-api-key value",
    ],
)
def test_what_trainers_print_stays_as_it_is(line):
    assert redact(line) == line
