"""Push a run to the Hugging Face Hub: checkpoint, card, report, recipe and results, and nothing that names this machine."""

import json
import os
from pathlib import Path

from hfasr.evaluation.card import public_name, read_json, write_card
from hfasr.evaluation.report import public_copy

# Rows with local paths, pickled arguments with the token in them, optimiser states.
_KEPT_BACK = (
    "predictions.jsonl", "quarantine.jsonl", "training_args.bin", "optimizer.pt", "scheduler.pt", "trainer_state.json", "batch_limit.json",
)  # fmt: skip


def check_push(repo_id: str | None, token: str | None = None) -> str:
    """Check before long work that a push can succeed: name, token, and that the Hub accepts it.

    Returns:
        `owner/name`; the owner is the token's where `repo_id` has none.

    Raises:
        ValueError: no or an impossible name, no token, or one that the Hub refuses.
        OSError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    # HTTPError is the base of what the HTTP library raises; which library that is changes with huggingface_hub's version.
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
    from huggingface_hub.utils import validate_repo_id

    if not repo_id:
        raise ValueError("no name to push to: give the repository as owner/name (--hub_model_id)")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is not a name the Hub takes: {error}") from None
    if not (token or get_token()):
        raise ValueError("no Hub token: run `hf auth login`, or set HF_TOKEN to a token with write access")
    try:
        user = HfApi(token=token).whoami()["name"]
    except HfHubHTTPError as error:
        raise ValueError(f"the Hub refuses the token ({error.response.status_code}): make one with write access and log in again") from None
    except HTTPError as error:
        raise OSError(f"the Hub cannot be reached ({error}); push the run folder later") from None
    return repo_id if "/" in repo_id else f"{user}/{repo_id}"


def files_to_push(run_folder: str | os.PathLike) -> list[Path]:
    """The files of a run that `push_run` uploads: those directly in the folder and in `lora/`, less hidden and temporary files,
    predictions, quarantine and the state of training. Other folders (`checkpoint-*`, logs) stay.

    Raises:
        FileNotFoundError: no checkpoint in the folder.
    """
    folder = Path(run_folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no config.json. Is it a run folder with a saved checkpoint?")
    return sorted(
        path
        for path in (*folder.iterdir(), *folder.glob("lora/*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".tmp" and path.name not in _KEPT_BACK
    )


def push_run(
    run_folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    audio: bool = False,
) -> str:
    """Upload a run in one commit; the repository is made if it does not exist, and files that have not changed are not sent again.

    Paths in recipe.json are shortened to their last part, and results.json loses the rates of single speakers. The card is written anew
    for the repository's name.

    Args:
        run_folder: a finished run.
        repo_id: `owner/name`, or a name in the token's account.
        private: whether a new repository is private; one that exists stays as it is.
        token: of the Hub; the stored one when None.
        revision: branch to commit to; the main one when None.
        audio: whether the report keeps its recordings and its table of speakers.

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: no checkpoint in the folder.
        ValueError: as `check_push`, or the token has no right to write there.
        OSError: the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    folder = Path(run_folder)
    files_to_push(folder)
    repo_id = check_push(repo_id, token)
    write_card(folder, repo_id=repo_id)
    operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), _public_content(path, audio)) for path in files_to_push(folder)]
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message=f"Push {folder.resolve().name}", revision=revision)
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise ValueError(f"the token may not write to {repo_id}: use one with write access to it") from error
        raise OSError(f"the Hub refused the push to {repo_id}: {error}") from error
    except HTTPError as error:
        raise OSError(f"the connection to the Hub broke ({error}); push again, what has arrived is not sent twice") from error
    return commit.commit_url


def _public_content(path: Path, audio: bool) -> str | bytes:
    """What stands for a file in the repository: its path, or changed bytes."""
    if path.name == "results.json":
        return json.dumps(_without_speakers(read_json(path)), ensure_ascii=False, indent=1).encode()
    if path.name in ("recipe.json", "adapter_config.json"):
        return json.dumps(_without_paths(read_json(path)), ensure_ascii=False, indent=1).encode()
    if path.name == "report.html" and not audio:
        return public_copy(path.read_text(encoding="utf-8")).encode()
    return str(path)


def _without_speakers(results: dict) -> dict:
    """Results of splits without the groups that name speakers."""
    return {
        split: {**found, "groups": {column: groups for column, groups in found["groups"].items() if column != "speaker"}}
        if isinstance(found, dict) and "groups" in found
        else found
        for split, found in results.items()
    }


def _without_paths(value):
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return public_name(value) if isinstance(value, str) else value
