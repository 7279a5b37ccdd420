"""QQ: text, mht and JSON exports."""
