//! Colours of a tree in a terminal.
//!
//! In: clean texts. Out: the same texts between escape sequences (ECMA-48, SGR), or unchanged. The
//! sequences name colours of the terminal's own palette, so that they fit a light and a dark
//! background.

use super::super::forest::State;
use std::env;
use std::io::IsTerminal;

/// Whether a tree is drawn in colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Colours {
    /// Text only.
    #[default]
    Off,
    /// With escape sequences for a terminal.
    On,
}

/// How a part of a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Strong,
    Dim,
    Red,
    Yellow,
    Magenta,
    Blue,
}

impl Ink {
    /// Returns the colour of a state. It is the colour that the page uses.
    pub(super) fn of(state: State) -> Self {
        match state {
            State::Ok => Self::Plain,
            State::Progress => Self::Blue,
            State::Error => Self::Yellow,
            State::Throttle => Self::Magenta,
            State::Fault => Self::Red,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Magenta => "35",
            Self::Blue => "34",
        }
    }
}

impl Colours {
    /// Returns whether `output` is a terminal that wants colours, see [`Self::of`].
    pub fn of_terminal(output: &impl IsTerminal) -> Self {
        let variable = |name| env::var(name).ok();
        let (no_color, term) = (variable("NO_COLOR"), variable("TERM"));
        Self::of(output.is_terminal(), no_color.as_deref(), term.as_deref())
    }

    /// Returns whether a program may write colours, by the rules of <https://no-color.org/>: to a
    /// terminal, unless `NO_COLOR` is set and not empty. `dumb` terminals have no colours.
    pub fn of(is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> Self {
        let is_refused = no_color.is_some_and(|value| !value.is_empty());
        match is_terminal && !is_refused && term != Some("dumb") {
            true => Self::On,
            false => Self::Off,
        }
    }

    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        match (self, ink.code()) {
            (Self::Off, _) | (_, "") => text.to_owned(),
            (Self::On, code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert_eq!(Colours::of(true, None, Some("xterm")), Colours::On);
        assert_eq!(Colours::of(true, Some(""), None), Colours::On);
        for (is_terminal, no_color, term) in
            [(false, None, None), (true, Some("1"), None), (true, None, Some("dumb"))]
        {
            assert_eq!(Colours::of(is_terminal, no_color, term), Colours::Off);
        }
    }

    #[test]
    fn every_painted_text_ends_its_colour() {
        assert_eq!(Colours::On.paint(Ink::Red, "fault"), "\u{1b}[31mfault\u{1b}[0m");
        assert_eq!(Colours::On.paint(Ink::Plain, "ok"), "ok");
        assert_eq!(Colours::Off.paint(Ink::Red, "fault"), "fault");
    }
}
