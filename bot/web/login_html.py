"""The login form, a page without scripts."""

from html import escape

from doppel.i18n import language, tr

_STYLE = """
:root { color-scheme: light dark;
  --paper: #f9fafb; --ink: #1f2937; --rule: #9ca3af; --accent: #4f46e5; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0b0f19; --ink: #f3f4f6; --rule: #6b7280; --bad: #fca5a5; }
}
body { margin: 0; min-height: 100dvh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", sans-serif; }
form { display: grid; gap: .75rem; width: min(20rem, 100vw - 2rem); }
input, button { font: inherit; padding: .6rem .75rem; border-radius: .5rem; border: 1px solid var(--rule); }
input { background: transparent; color: inherit; }
button { background: var(--accent); border-color: var(--accent); color: #fff; cursor: pointer; }
p { margin: 0; color: var(--bad); }
"""


def login_form(*, action: str = "login", page: str = "./", problem: str = "") -> str:
    """The form as a whole page.

    Args:
        action: address of the login, relative to that under which the form is shown.
        page: where to go afterwards.
        problem: why the last attempt failed; empty at the first.
    """
    title, label = escape(tr("Sign in")), escape(tr("Password"))
    page_language = "zh-CN" if language() == "zh" else language()
    return (
        f'<!doctype html>\n<html lang="{page_language}">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f'<body><form method="post" action="{escape(action)}">'
        f'<label for="password">{label}</label>'
        f'<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>'
        f'<input name="page" type="hidden" value="{escape(page)}">'
        f"{f'<p role=alert>{escape(problem)}</p>' if problem else ''}"
        f"<button>{title}</button></form></body>\n</html>\n"
    )
