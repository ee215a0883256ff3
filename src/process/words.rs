//! Command lines as Hadoop's `StreamUtil.splitArgs` divides them: at spaces; `'…'` and `"…"` are a word each, also within
//! another, and nothing escapes. There is no shell.

/// The words of a command line.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars() {
        let ends = match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                true
            }
            (Some(open), c) if open == c => {
                quote = None;
                true
            }
            (None, ' ') => true,
            _ => false,
        };
        if !ends {
            word.push(c);
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_divided_as_hadoop_does() {
        assert_eq!(split("cat"), ["cat"]);
        assert_eq!(split("  python3   map.py -v "), ["python3", "map.py", "-v"]);
        assert_eq!(split(r#"awk '{ print $1 }' "a b""#), ["awk", "{ print $1 }", "a b"]);
        assert_eq!(split(r#"sh -c 'echo "x"'"#), ["sh", "-c", r#"echo "x""#]);
        assert_eq!(split(r"a\ b"), ["a\\", "b"]);
        assert_eq!(split("a'b c'd"), ["a", "b c", "d"]);
        assert_eq!(split("'' x"), ["x"]);
        assert_eq!(split(""), [""; 0]);
    }
}
