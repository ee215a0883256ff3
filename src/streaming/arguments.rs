//! Hadoop's flags begin with one dash and have long names; ours begin with two. Those of `run streaming` may have either.

use std::ffi::OsString;

/// The flags of Hadoop Streaming that have long names.
const NAMES: [&str; 17] = [
    "input",
    "output",
    "mapper",
    "reducer",
    "combiner",
    "file",
    "files",
    "archives",
    "inputformat",
    "outputformat",
    "partitioner",
    "numReduceTasks",
    "cmdenv",
    "io",
    "lazyOutput",
    "verbose",
    "help",
];

/// The arguments with two dashes before the names that have one, if they are of `run streaming`.
pub(crate) fn with_two_dashes(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(run) = arguments.iter().position(|argument| argument == "run") else { return arguments };
    let Some(app) = arguments[run..].iter().position(|argument| argument == super::NAME) else { return arguments };
    for argument in &mut arguments[run + app + 1..] {
        if argument == "--" {
            break;
        }
        let name = argument.to_str().and_then(|text| text.strip_prefix('-'));
        let known = name.is_some_and(|name| NAMES.contains(&name.split('=').next().unwrap_or_default()));
        if known {
            let mut with = OsString::from("-");
            with.push(&*argument);
            *argument = with;
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        with_two_dashes(arguments).iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_with_one_dash_get_two() {
        assert_eq!(
            changed("g run streaming -D a=b -input x -output=y --mapper cat -o z -q -file f"),
            "g run streaming -D a=b --input x --output=y --mapper cat -o z -q --file f"
        );
        assert_eq!(changed("g run wordcount -input x"), "g run wordcount -input x");
        assert_eq!(changed("g run streaming -- -input"), "g run streaming -- -input");
        assert_eq!(changed("g cat streaming"), "g cat streaming");
    }
}
