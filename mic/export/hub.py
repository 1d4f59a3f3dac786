"""Send an exported folder to the Hugging Face Hub; the repository is private unless asked."""

from pathlib import Path

from mic.errors import InputError, RunError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_repo_name(repo: str) -> None:
    """Raise an InputError for a repository that is not OWNER/NAME, before anything is written."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise InputError(f"--push {repo}: no name of a repository; give OWNER/NAME") from None


def push(folder: Path, repo: str, public: bool, endpoint: str | None = None) -> str:
    """Send the folder as one commit, to a repository that is made if missing; a line about it.

    The token is that of the Hub's client, from HF_TOKEN or `hf auth login`; it is never shown.

    Raises InputError when the Hub refuses access, or the repository is public and `public` is
    false; RunError when the Hub cannot be reached. The folder stays in each case.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.repo_info(url.repo_id).private:
            raise InputError(
                f"--push {repo}: that repository is public; add --public, or name another. "
                f"{folder} is written; nothing was sent"
            )
        commit = api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, commit_message="Export of mic"
        )
    except InputError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        cure = LOG_IN if status in (401, 403, 404) else "try again"
        raise InputError(
            f"--push {repo}: the Hub answers {status}; {cure}. {folder} is written"
        ) from None
    except Exception as error:  # no network: errors of the HTTP client
        reason = type(error).__name__
        raise RunError(
            f"--push {repo}: the Hub cannot be reached ({reason}); {folder} is written: try again"
        ) from error
    access = "for all to see" if public else "private"
    return f"sent to {url}, {access}: commit {commit.oid[:10]}"
