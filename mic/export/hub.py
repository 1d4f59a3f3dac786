"""Sending an exported folder to the Hugging Face Hub; only when asked, private unless told."""

from pathlib import Path

from mic.errors import InputError, RunError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def refuse_name(repo: str) -> None:
    """Raise an InputError for what is no OWNER/NAME, before anything is written."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise InputError(f"--push {repo}: no name of a repository; give OWNER/NAME") from None


def push(folder: Path, repo: str, public: bool, endpoint: str | None = None) -> str:
    """Make the repository if it is not there, send the folder as one commit; what to tell of it.

    The token is the client's own, from HF_TOKEN or `hf auth login`; it is neither read nor shown.

    Raises InputError when the Hub does not let us in, or the repository is public and nobody said
    that it may be; RunError when the Hub cannot be reached. The folder stays in each case.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.repo_info(made.repo_id).private:
            raise InputError(
                f"--push {repo}: that repository is public; add --public, or name another. "
                f"{folder} is written; nothing was sent"
            )
        commit = api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Export of mic"
        )
    except InputError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        cure = LOG_IN if status in (401, 403, 404) else "try again"
        raise InputError(
            f"--push {repo}: the Hub answers {status}; {cure}. {folder} is written"
        ) from None
    except Exception as error:  # no network, in the words of its client
        reason = type(error).__name__
        raise RunError(
            f"--push {repo}: the Hub cannot be reached ({reason}); {folder} is written: try again"
        ) from error
    who = "for all to see" if public else "private"
    return f"sent to {made}, {who}: commit {commit.oid[:10]}"
