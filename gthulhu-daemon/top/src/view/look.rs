//! Colours and marks: the sixteen of every terminal, or none; block letters, or ASCII.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) utf8: bool,
    pub(crate) color: bool,
}

/// What a part of the screen means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    /// The line at the top, and the row with the cursor.
    Title,
    Head,
    /// What one need not read.
    Dim,
    Good,
    Warn,
    Bad,
    Info,
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

impl Look {
    /// As the environment says: <https://no-color.org>, and locale(7).
    pub(crate) fn here(ascii: bool) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            utf8: !ascii && (locale.contains("utf-8") || locale.contains("utf8")),
            color: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
        }
    }

    /// In place of what was cut out.
    pub(crate) fn mark(self) -> char {
        if self.utf8 { '…' } else { '~' }
    }

    /// No more than: what is told as the end of a bucket.
    pub(crate) fn at_most(self) -> &'static str {
        if self.utf8 { "≤" } else { "<=" }
    }

    pub(crate) fn style(self, paint: Paint) -> Style {
        let style = Style::new();
        // Colours by name follow the terminal's theme. Never white or black: one of them is the background.
        let colored = |color: Color, otherwise: Style| if self.color { style.fg(color) } else { otherwise };
        match paint {
            Paint::Plain => style,
            Paint::Title => style.add_modifier(Modifier::REVERSED),
            Paint::Head => style.add_modifier(Modifier::BOLD),
            Paint::Dim => style,
            Paint::Good => colored(Color::Green, style),
            Paint::Warn => colored(Color::Yellow, style.add_modifier(Modifier::BOLD)),
            Paint::Bad => colored(Color::Red, style).add_modifier(Modifier::BOLD),
            Paint::Info => colored(Color::Cyan, style),
        }
    }

    pub(crate) fn span(self, paint: Paint, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(paint))
    }

    pub(crate) fn line(self, paint: Paint, text: impl Into<String>) -> Line<'static> {
        Line::from(self.span(paint, text))
    }

    /// One mark for a share of 1: the lowest is nothing at all.
    pub(crate) fn level(self, share: f64) -> char {
        let marks = if self.utf8 { BLOCKS } else { ASCII };
        if share <= 0.0 {
            return marks[0];
        }
        marks[((share * 7.0).ceil() as usize).clamp(1, 7)]
    }

    /// The newest at the right; blanks where nothing is known.
    pub(crate) fn spark(self, shares: &[f64], columns: usize) -> String {
        let shown = &shares[shares.len().saturating_sub(columns)..];
        " ".repeat(columns - shown.len()) + &shown.iter().map(|share| self.level(*share)).collect::<String>()
    }

    /// What bars are made of.
    pub(crate) fn mark_of_bar(self) -> &'static str {
        if self.utf8 { "█" } else { "#" }
    }

    /// Where a bar is not.
    pub(crate) fn empty(self) -> &'static str {
        if self.utf8 { "·" } else { "." }
    }

    /// A bar of so many columns for a share of 1; what is more than nothing is seen.
    pub(crate) fn bar(self, share: f64, columns: usize) -> String {
        let full = (share.clamp(0.0, 1.0) * columns as f64).round() as usize;
        let full = if share > 0.0 { full.max(1) } else { 0 };
        self.mark_of_bar().repeat(full.min(columns))
    }
}
