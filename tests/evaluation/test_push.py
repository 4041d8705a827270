"""Pushing a run to a real HTTP server that speaks the Hub's calls: what arrives, what stays at home, what a user is told."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import ModelCard

from hfasr.evaluation.hub import files_to_push
from hfasr.evaluation.report import write_report

TOKEN = "hf_good"


class _Hub(BaseHTTPRequestHandler):
    """whoami, create, validate-yaml, preupload, LFS batch and upload, commit. State is kept on the server object."""

    def do_GET(self):
        if not self._allowed():
            return
        self._answer(200, {"name": "asel", "type": "user", "orgs": []} if self.path == "/api/whoami-v2" else {})

    def do_PUT(self):
        self.server.large[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_POST(self):
        if not self._allowed():
            return
        body = self._body()
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer(200, {"url": f"{self.server.address}/asel/ky"})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.server.address}/storage/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self._commit(self.path.rpartition("/")[2], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404, {"error": f"not known here: {self.path}"})

    def _commit(self, revision: str, lines: list[dict]):
        if "forbidden" in self.path:
            self._answer(403, {"error": "no right"})
            return
        for line in lines:
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                self.server.files[line["value"]["path"]] = self.server.large[line["value"]["oid"]]
        url = f"{self.server.address}/asel/ky/commit/{'0' * 40}"
        self._answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})

    def _allowed(self) -> bool:
        good = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not good:
            self._answer(401, {"error": "Invalid credentials"})
        return good

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: dict):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.large, server.created = {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "ky_phoneme"
    (folder / "checkpoint-5").mkdir(parents=True)
    rows = [
        {"split": "test", "id": "a", "text": "т", "reference": "t", "hypothesis": "d", "duration": 1, "speaker": "Ainura", "audio": None}
    ]
    write_report(folder / "report.html", rows, unit="phoneme", title="t")
    files = {
        "recipe.json": json.dumps(
            {"unit": "phoneme", "language": "ky", "corpus": {"name": "/home/asel/ky", "splits": {}}, "base_model": "quartznet-small",
             "model_type": "quartznet", "arguments": {"output_dir": "/home/asel/runs/ky_phoneme", "learning_rate": 0.005}}
        ),
        "results.json": json.dumps(
            {
                "test": {"per": 0.1, "utterances": 1, "seconds": 1.0, "groups": {"gender": {"male": {}}, "speaker": {"Ainura": {}}}},
                "unit": "phoneme",
            }
        ),
        "config.json": "{}",
        "model.safetensors": "weights" * 100,
        "predictions.jsonl": "/home/asel/clip.mp3",
        "quarantine.jsonl": "",
        "training_args.bin": "hf_secret",
        "report.html.tmp": "",
        ".hidden": "",
        "checkpoint-5/optimizer.pt": "",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def _push(address: str, folder, repo_id: str, token: str | None = TOKEN, home=None) -> subprocess.CompletedProcess:
    """In a process of its own, because huggingface_hub reads HF_ENDPOINT when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment |= {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home or folder.parent / "home")}
    environment |= {"HF_TOKEN": token} if token else {}
    code = "import sys; from hfasr.evaluation.hub import push_run; print(push_run(sys.argv[1], sys.argv[2], private=True))"
    return subprocess.run([sys.executable, "-c", code, str(folder), repo_id], env=environment, capture_output=True, encoding="utf-8")


def test_list_of_files(run):
    names = [path.name for path in files_to_push(run)]
    assert names == ["config.json", "model.safetensors", "recipe.json", "report.html", "results.json"]
    (run / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        files_to_push(run)


def test_push_arrives_without_what_is_private(hub, run):
    done = _push(hub.address, run, "ky-phonemes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("0" * 40)
    assert hub.created[-1]["name"] == "ky-phonemes"
    assert hub.created[-1].get("private") or hub.created[-1].get("visibility") == "private"
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors", "recipe.json", "report.html", "results.json"]
    weights = (run / "model.safetensors").read_bytes()
    assert hub.files["model.safetensors"] == weights
    assert hub.large == {hashlib.sha256(weights).hexdigest(): weights}
    everything = b"".join(hub.files.values()).decode()
    for private in ("/home", "Ainura", "hf_secret"):
        assert private not in everything
    recipe = json.loads(hub.files["recipe.json"])
    assert recipe["arguments"] == {"output_dir": "ky_phoneme", "learning_rate": 0.005}
    assert 'checkpoint = "asel/ky-phonemes"' in ModelCard(hub.files["README.md"].decode()).text
    assert "/home/asel" in (run / "recipe.json").read_text()
    results = json.loads(hub.files["results.json"])
    assert results["test"].pop("groups") == {"gender": {"male": {}}}  # the rates of single speakers stay here
    assert results == {"test": {"per": 0.1, "utterances": 1, "seconds": 1.0}, "unit": "phoneme"}


@pytest.mark.parametrize(
    ("repo_id", "token", "words"),
    [
        ("asel/ky", None, "no Hub token: run `hf auth login`, or set HF_TOKEN"),
        ("asel/ky", "hf_bad", "the Hub refuses the token (401)"),
        ("asel/ky/phonemes", TOKEN, "is not a name the Hub takes"),
        ("", TOKEN, "no name to push to"),
        ("asel/forbidden", TOKEN, "the token may not write to asel/forbidden"),
    ],
)
def test_what_goes_wrong_is_said(hub, run, repo_id, token, words):
    done = _push(hub.address, run, repo_id, token)
    assert done.returncode != 0
    assert words in done.stderr
    assert "ValueError" in done.stderr


def test_no_connection_is_said(run):
    done = _push("http://127.0.0.1:9", run, "asel/ky")
    assert "OSError: the Hub cannot be reached" in done.stderr
