"""The pages' colours and fonts. Grey text has a contrast of at least 4.5:1 (WCAG AA) in light and dark mode."""

import gradio as gr

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", "sans-serif")


def create_theme() -> gr.themes.Base:
    """Gradio's Soft theme with readable greys. Under the pointer a secondary button changes its border only.

    A filled button would look like a chosen answer: the pointer often rests where the next question's answers appear.
    """
    theme: gr.themes.Base = gr.themes.Soft(
        primary_hue="indigo", font=_FONTS, font_mono=("ui-monospace", "monospace")
    ).set(
        background_fill_primary="*neutral_50",  # as in Soft; `set` resets it to white
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        link_text_color_dark="*primary_300",
        color_accent_soft_dark="*neutral_800",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_secondary_background_fill_hover="*button_secondary_background_fill",
        button_secondary_background_fill_hover_dark="*button_secondary_background_fill",
        button_secondary_border_color_hover="*neutral_400",
        button_secondary_border_color_hover_dark="*neutral_400",
    )
    return theme
