//! Reads the text of a stack, in the form of its language.
//!
//! In: the language (`telemetry.sdk.language`) and the text. Out: the frames of the exception, the
//! innermost first, then those of its causes. Bound: [`FRAME_COUNT_MAX`] frames for an exception,
//! [`CAUSE_COUNT_MAX`] causes. If the language is unknown, the form of the text decides; the lines
//! of an unknown form become frames as they are.

use serde_json::{Value, json};

/// Largest number of frames of one exception. The others are counted.
const FRAME_COUNT_MAX: usize = 100;

/// Largest number of causes of an exception.
const CAUSE_COUNT_MAX: usize = 10;

/// The stack of an exception or of one of its causes.
#[derive(Debug, Default)]
pub struct Stack<'a> {
    /// Type of the exception. Empty for the outermost exception, whose event has the type.
    pub type_name: &'a str,
    /// Message of the exception, like the type.
    pub message: String,
    /// The frames, as X-Ray writes them.
    pub frames: Vec<Value>,
    /// Number of frames that were left out.
    pub truncated_count: usize,
}

impl Stack<'_> {
    fn push(&mut self, path: &str, line: Option<u64>, label: &str) {
        if self.frames.len() == FRAME_COUNT_MAX {
            self.truncated_count += 1;
            return;
        }
        let mut frame = json!({});
        if !path.is_empty() {
            frame["path"] = path.into();
        }
        if let Some(line) = line {
            frame["line"] = line.into();
        }
        if !label.is_empty() {
            frame["label"] = label.into();
        }
        self.frames.push(frame);
    }
}

/// Reads the text of a stack. The first result is the exception itself; each other one is the cause
/// of the result before it.
pub fn parse<'a>(language: &str, text: &'a str) -> Vec<Stack<'a>> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let language = if LANGUAGES.contains(&language) { language } else { guess(text) };
    let stacks = match language {
        // PHP's SDK writes stacks like Java.
        "java" | "php" => java(text),
        "python" => python(text),
        "nodejs" | "javascript" | "webjs" => vec![javascript(text)],
        "dotnet" => vec![dotnet(text)],
        "go" => vec![go(text)],
        _ => vec![plain(text)],
    };
    // Another form than that of the language: its lines are better than nothing.
    match stacks.iter().any(|stack| !stack.frames.is_empty()) {
        true => stacks,
        false => vec![plain(text)],
    }
}

/// The languages with a known form.
const LANGUAGES: &[&str] =
    &["java", "php", "python", "nodejs", "javascript", "webjs", "dotnet", "go"];

/// Returns the language whose form a stack has. Some senders do not name their language.
fn guess(text: &str) -> &'static str {
    let forms = [
        ("Traceback (most recent call last)", "python"),
        ("goroutine ", "go"),
        ("\n\tat ", "java"),
        ("\n    at ", "nodejs"),
        ("\n   at ", "dotnet"),
    ];
    forms.iter().find(|(mark, _)| text.contains(mark)).map_or("", |(_, language)| language)
}

/// Splits `PATH:LINE`.
fn place(text: &str) -> (&str, Option<u64>) {
    let split = text.rsplit_once(':').and_then(|(path, line)| Some((path, line.parse().ok()?)));
    split.map_or((text, None), |(path, line)| (path, Some(line)))
}

/// Splits `TYPE: MESSAGE`.
fn heading(text: &str) -> (&str, &str) {
    text.split_once(": ").unwrap_or((text.trim_end_matches(':'), ""))
}

fn java(text: &str) -> Vec<Stack<'_>> {
    let mut stacks = vec![Stack::default()];
    let mut is_in_message = false;
    for line in text.lines() {
        let stack = stacks.last_mut().expect("it is never empty");
        let frame = line.trim_start().strip_prefix("at ").and_then(|it| it.strip_suffix(')'));
        if let Some((label, path)) = frame.and_then(|frame| frame.split_once('(')) {
            // A module or a class loader may stand before the label.
            let label = label.rsplit('/').next().unwrap_or(label);
            let (path, line) = place(path);
            stack.push(path, line, label);
            is_in_message = false;
        } else if let Some(cause) = line.strip_prefix("Caused by: ") {
            if stacks.len() > CAUSE_COUNT_MAX {
                break;
            }
            let (type_name, message) = heading(cause);
            stacks.push(Stack { type_name, message: message.to_owned(), ..Stack::default() });
            is_in_message = true;
        } else if is_in_message && !line.trim_start().starts_with("... ") {
            stack.message.push('\n');
            stack.message.push_str(line);
        }
    }
    stacks
}

fn python(text: &str) -> Vec<Stack<'_>> {
    let is_seam = |line: &str| {
        line.starts_with("During handling of the above exception")
            || line.starts_with("The above exception was the direct cause")
    };
    // The innermost exception comes first, and in it the outermost frame.
    let mut stacks = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let blocks: Vec<&[&str]> = lines.split(|line| is_seam(line)).collect();
    for block in blocks.iter().rev().take(1 + CAUSE_COUNT_MAX) {
        let mut stack = Stack::default();
        for line in block.iter().rev() {
            let Some(rest) = line.trim_start().strip_prefix("File \"") else { continue };
            let Some((path, rest)) = rest.split_once('"') else { continue };
            let mut parts = rest.trim_start_matches(", line ").splitn(2, ", in ");
            let number = parts.next().and_then(|number| number.trim().parse().ok());
            stack.push(path, number, parts.next().unwrap_or_default());
        }
        if !stacks.is_empty() {
            let starts = |line: &&&str| !line.is_empty() && !line.starts_with([' ', '\t']);
            let last = block.iter().rev().find(starts).copied().unwrap_or_default();
            let (type_name, message) = heading(last);
            (stack.type_name, stack.message) = (type_name, message.to_owned());
        }
        stacks.push(stack);
    }
    stacks
}

fn javascript(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    for line in text.lines() {
        let Some(frame) = line.trim_start().strip_prefix("at ") else { continue };
        let (label, path) = match frame.strip_suffix(')').and_then(|it| it.split_once(" (")) {
            Some((label, path)) => (label, path),
            None => ("", frame),
        };
        // The last number is the column.
        let (path, column) = place(path);
        let (path, line) = if column.is_some() { place(path) } else { (path, None) };
        stack.push(path, line.or(column), label);
    }
    stack
}

fn dotnet(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    for line in text.lines() {
        let Some(frame) = line.trim().strip_prefix("at ") else { continue };
        match frame.split_once(" in ") {
            Some((label, path)) => {
                let (path, line) = path.rsplit_once(":line ").unwrap_or((path, ""));
                stack.push(path, line.parse().ok(), label);
            }
            None => stack.push("", None, frame),
        }
    }
    stack
}

/// A line with a function, then a line with a tab and `PATH:LINE +0x1d`.
fn go(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    let mut label = "";
    for line in text.lines() {
        match line.strip_prefix('\t') {
            Some(path) => {
                let (path, line) = place(path.split(" +0x").next().unwrap_or(path).trim());
                stack.push(path, line, label);
                label = "";
            }
            None if line.starts_with("goroutine ") => {}
            None => label = line.rsplit_once('(').map_or(line, |(function, _)| function),
        }
    }
    stack
}

fn plain(text: &str) -> Stack<'_> {
    let mut stack = Stack::default();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| {
        stack.push("", None, line);
    });
    stack
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(stack: &Stack<'_>) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let of =
            |it: &Value| format!("{} {} {}", text(&it["path"]), it["line"], text(&it["label"]));
        stack.frames.iter().map(of).collect()
    }

    #[test]
    fn a_stack_of_java_has_its_causes() {
        let text = "a.Outer: no\n\tat app//a.B.run(B.java:7)\n\tat a.B.<init>(Native Method)\n\
            Caused by: a.Inner: first\nsecond\n\tat c.D.go(D.java:9)\n\t... 3 more\n";
        let stacks = parse("java", text);
        assert_eq!(frames(&stacks[0]), ["B.java 7 a.B.run", "Native Method null a.B.<init>"]);
        assert_eq!((stacks[1].type_name, &*stacks[1].message), ("a.Inner", "first\nsecond"));
        assert_eq!(frames(&stacks[1]), ["D.java 9 c.D.go"]);
    }

    #[test]
    fn a_stack_of_python_has_its_causes_and_the_innermost_frame_first() {
        let text = "Traceback (most recent call last):\n  File \"/a.py\", line 3, in load\n    \
            open()\nOSError: gone\n\nDuring handling of the above exception, another exception \
            occurred:\n\nTraceback (most recent call last):\n  File \"/m.py\", line 1, in <module>\n    \
            run()\n  File \"/a.py\", line 5, in run\n    raise ValueError\nValueError: kaputt\n";
        let stacks = parse("python", text);
        assert_eq!(frames(&stacks[0]), ["/a.py 5 run", "/m.py 1 <module>"]);
        assert_eq!((stacks[1].type_name, &*stacks[1].message), ("OSError", "gone"));
        assert_eq!(frames(&stacks[1]), ["/a.py 3 load"]);
    }

    #[test]
    fn stacks_of_other_languages_have_paths_lines_and_labels() {
        for (language, text, expected) in [
            (
                "nodejs",
                "Error: x\n    at make (/srv/o.js:17:61)\n    at node:internal/main:28:49",
                ["/srv/o.js 17 make", "node:internal/main 28 -"],
            ),
            (
                "dotnet",
                "System.E: x\n   at A.B(String c) in /src/a.cs:line 12\n   at C.D()",
                ["/src/a.cs 12 A.B(String c)", "- null C.D()"],
            ),
            (
                "go",
                "goroutine 1 [running]:\nmain.run(0x1)\n\t/a.go:9 +0x1d\nmain.main()\n\t/m.go:3\n",
                ["/a.go 9 main.run", "/m.go 3 main.main"],
            ),
            ("", "Error: x\n    at f (/a.js:1:2)\n    at /b.js:3:4", ["/a.js 1 f", "/b.js 3 -"]),
            ("rust", "0: a::b\n  at x.rs:1", ["- null 0: a::b", "- null at x.rs:1"]),
            ("java", "first\nsecond", ["- null first", "- null second"]),
        ] {
            let stacks = parse(language, text);
            assert_eq!(frames(&stacks[0]), expected, "{language}");
        }
        assert!(parse("java", " \n").is_empty());
    }

    #[test]
    fn a_long_stack_is_cut_and_says_so() {
        let frame = |line: usize| format!("    at f (/a.js:{line}:1)\n");
        let text: String = (1..=150).map(frame).collect();
        let stacks = parse("nodejs", &text);
        assert_eq!((stacks[0].frames.len(), stacks[0].truncated_count), (100, 50));
        let causes = "Caused by: A: b\n\tat c.D(E.java:1)\n".repeat(1_000);
        assert_eq!(parse("java", &causes).len(), 1 + CAUSE_COUNT_MAX);
    }
}
