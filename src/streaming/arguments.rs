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

/// The arguments with two dashes before the names that have one, if they are of `run streaming` or `submit streaming`.
pub(crate) fn with_two_dashes(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let runs = |argument: &OsString| argument == "run" || argument == "submit";
    let Some(run) = arguments.iter().position(runs) else { return arguments };
    let Some(app) = arguments[run..].iter().position(|argument| argument == super::NAME) else { return arguments };
    let flags = arguments.split_off(run + app + 1);
    arguments.extend(two_dashes(flags));
    arguments
}

/// The flags of `streaming` with two dashes.
pub(crate) fn two_dashes(mut flags: Vec<OsString>) -> Vec<OsString> {
    for flag in &mut flags {
        if flag == "--" {
            break;
        }
        let name = flag.to_str().and_then(|text| text.strip_prefix('-'));
        if name.is_some_and(|name| NAMES.contains(&name.split('=').next().unwrap_or_default())) {
            let mut with = OsString::from("-");
            with.push(&*flag);
            *flag = with;
        }
    }
    flags
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
        assert_eq!(changed("g submit streaming -input x"), "g submit streaming --input x");
        assert_eq!(changed("g run wordcount -input x"), "g run wordcount -input x");
        assert_eq!(changed("g run streaming -- -input"), "g run streaming -- -input");
        assert_eq!(changed("g cat streaming"), "g cat streaming");
    }
}
