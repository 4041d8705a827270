"""What several tests stand on: the shared reference data, a private cache, a toy corpus."""

import os
import tempfile
from pathlib import Path

import pytest

# Set before any import of ours: no test may read or fill the user's caches, or reach the Hub.
_CACHE = tempfile.mkdtemp(prefix="hfasr-tests-")
# NeMo's reference tensors come from a CPU where MKL takes this path; another rounds the spectra of near-silent frames by up to 2e-4.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
if "PYTEST_XDIST_WORKER" in os.environ:  # each of the processes that share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HFASR_CACHE=f"{_CACHE}/hfasr", HF_HOME=f"{_CACHE}/hf", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data beside the project; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference data not found: {folder}")
    return folder


@pytest.fixture(scope="session")
def toy_release() -> Path:
    """Return a small Kyrgyz Common Voice release, spoken by espeak-ng."""
    from hfasr.corpora import embedded

    return embedded("ky", seed=1, utterances={"train": 24, "dev": 6, "test": 6, "other": 2})


@pytest.fixture
def verb(capsys, monkeypatch):
    """Run a command line of `hfasr` in this process -> (exit status, standard output, standard error)."""

    def run(*words: object) -> tuple[int, str, str]:
        from hfasr import cli

        monkeypatch.setattr("sys.argv", ["hfasr", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def browser():
    """Start a real Chromium, Debian's; tests of pages skip where there is none."""
    playwright, chromium = pytest.importorskip("playwright.sync_api"), Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip(f"no {chromium}")
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"]
        browser = running.chromium.launch(executable_path=str(chromium), args=arguments)
        yield browser
        browser.close()


def pytest_sessionfinish():
    import shutil

    shutil.rmtree(_CACHE, ignore_errors=True)
