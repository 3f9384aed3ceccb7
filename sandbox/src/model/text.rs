//! Makes text from documents safe for a terminal, and formats durations.
//!
//! In: any string or number that a client sent. Out: one line that cannot move the cursor, change a
//! colour or reverse the writing direction. Bound: the caller gives the largest number of
//! characters. No I/O, no clock.

use std::fmt::Write;

/// Returns `text` with control characters and invisible characters escaped.
///
/// The result has at most `length_max` characters. Longer text is cut, and the last character is
/// then an ellipsis.
pub fn clean(text: &str, length_max: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    // Position in bytes at which `line` is cut if the text is too long. The ellipsis then fits.
    let mut cut_at = 0;
    for character in text.chars() {
        let piece_start = line.len();
        if is_hostile(character) {
            let _ = write!(line, "{}", character.escape_default());
            length += line.len() - piece_start;
        } else {
            line.push(character);
            length += 1;
        }
        if length > length_max {
            line.truncate(cut_at);
            line.push('…');
            break;
        }
        if length < length_max {
            cut_at = line.len();
        }
    }
    line
}

/// Returns whether a character could change how a terminal shows other text.
///
/// These are the control characters (C0, DEL and C1, which begin escape sequences), and invisible
/// characters that reverse, join or break text, see
/// <https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>.
fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Formats a duration in seconds: `20 us`, `0.4 ms`, `482 ms`, `1.23 s`, `340 s`.
///
/// Returns `?` for a number below zero or above one day (86,400 s), and for NaN.
pub fn duration(seconds: f64) -> String {
    // A duration of more than a day is the result of a wrong clock.
    if !(0.0..=86_400.0).contains(&seconds) {
        return "?".to_owned();
    }
    let ms = seconds * 1e3;
    if ms < 0.0995 {
        format!("{:.0} us", ms * 1e3)
    } else if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else if seconds < 99.995 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_escaped() {
        assert_eq!(clean("a\u{1b}[2J\n\u{9b}\u{7f}", 99), "a\\u{1b}[2J\\n\\u{9b}\\u{7f}");
        assert_eq!(
            clean("x\u{202e}y\u{2066}\u{2028}\u{feff}", 99),
            "x\\u{202e}y\\u{2066}\\u{2028}\\u{feff}"
        );
        assert_eq!(clean("größe 価格 🙂 \"q\" \\", 99), "größe 価格 🙂 \"q\" \\");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcde…");
        assert_eq!(clean("ééééééé", 3), "éé…");
        assert_eq!(clean("abc\u{1b}def", 6), "abc…");
        assert_eq!(clean("\u{1b}", 3), "…");
        for length_max in 1..40 {
            let cut = clean(&"a\u{1b}b\u{10ffff}".repeat(20), length_max);
            assert!(cut.chars().count() <= length_max && cut.ends_with('…'), "{cut}");
        }
    }

    #[test]
    fn durations_are_short_and_broken_clocks_show() {
        for (seconds, text) in [
            (0.0, "0 us"),
            (0.000_02, "20 us"),
            (0.000_4, "0.4 ms"),
            (0.009_96, "10 ms"),
            (0.482_4, "482 ms"),
            (0.999_6, "1.00 s"),
            (1.234, "1.23 s"),
            (340.2, "340 s"),
            (-1.0, "?"),
            (1e300, "?"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
