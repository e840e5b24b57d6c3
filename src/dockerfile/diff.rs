//! The unified diff of two texts that have the same lines but for some that changed.
//! It must never be used for texts with lines added or removed.

/// Unchanged lines around a change, as in `diff -u`.
const CONTEXT: usize = 3;

/// The difference between `old` and `new`, whose changes all lie within lines. Empty if there is none.
pub fn unified(path: &str, old: &[u8], new: &[u8]) -> Vec<u8> {
    let old: Vec<&[u8]> = old.split_inclusive(|&byte| byte == b'\n').collect();
    let new: Vec<&[u8]> = new.split_inclusive(|&byte| byte == b'\n').collect();
    let changed: Vec<usize> = (0..old.len().min(new.len())).filter(|&line| old[line] != new[line]).collect();
    let mut text = Vec::new();
    let Some(&first) = changed.first() else { return text };
    text.extend(format!("--- {path}\n+++ {path}\n").bytes());
    let mut hunk = (first, first);
    for &line in &changed[1..] {
        if line - hunk.1 > 2 * CONTEXT {
            write_hunk(&mut text, &old, &new, hunk);
            hunk = (line, line);
        }
        hunk.1 = line;
    }
    write_hunk(&mut text, &old, &new, hunk);
    text
}

fn write_hunk(text: &mut Vec<u8>, old: &[&[u8]], new: &[&[u8]], (first, last): (usize, usize)) {
    let start = first.saturating_sub(CONTEXT);
    let end = (last + 1 + CONTEXT).min(old.len());
    let range = match end - start {
        1 => format!("{}", start + 1),
        count => format!("{},{count}", start + 1),
    };
    text.extend(format!("@@ -{range} +{range} @@\n").bytes());
    let mut line = start;
    while line < end {
        let run = (line..end).take_while(|&line| old[line] != new[line]).count();
        for (sign, lines) in [(b'-', &old[line..line + run]), (b'+', &new[line..line + run])] {
            for line in lines {
                write_line(text, sign, line);
            }
        }
        line += run;
        if run == 0 {
            write_line(text, b' ', old[line]);
            line += 1;
        }
    }
}

fn write_line(text: &mut Vec<u8>, sign: u8, line: &[u8]) {
    text.push(sign);
    text.extend_from_slice(line);
    if line.last() != Some(&b'\n') {
        text.extend_from_slice(b"\n\\ No newline at end of file\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_lines_stand_in_hunks_with_three_lines_around() {
        let old = (1..=20).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
        let new = old.replace("\n2\n", "\ntwo\n").replace("\n3\n", "\nthree\n").replace("\n20\n", "\ntwenty");
        let old = old.trim_end();
        let expected = "--- F\n+++ F\n@@ -1,6 +1,6 @@\n 1\n-2\n-3\n+two\n+three\n 4\n 5\n 6\n\
            @@ -17,4 +17,4 @@\n 17\n 18\n 19\n-20\n\\ No newline at end of file\n+twenty\n\\ No newline at end of file\n";
        assert_eq!(String::from_utf8(unified("F", old.as_bytes(), new.as_bytes())).unwrap(), expected);
        assert_eq!(unified("F", b"a\n", b"a\n"), b"");
        assert_eq!(unified("F", b"\xff\r\n", b"b\r\n"), b"--- F\n+++ F\n@@ -1 +1 @@\n-\xff\r\n+b\r\n");
    }
}
