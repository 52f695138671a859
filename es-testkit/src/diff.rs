//! A line diff of pretty `Debug` output.

use std::fmt::Debug;

/// The lines of both values: `-` stands before what only `expected` has, `+` before what only `actual` has.
pub(crate) fn diff<T: Debug + ?Sized, U: Debug + ?Sized>(expected: &T, actual: &U) -> String {
    let (expected, actual) = (format!("{expected:#?}"), format!("{actual:#?}"));
    if expected == actual {
        return format!("{}\n(both print the same, but `==` says that they differ)", marked(' ', &expected));
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), actual.lines().collect());
    if old.len().saturating_mul(new.len()) > 4_000_000 {
        return format!("{}\n{}", marked('-', &expected), marked('+', &actual));
    }
    let common = common_lengths(&old, &new);
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(format!("  {}", old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines.join("\n")
}

/// Pretty `Debug` output with one mark before each line.
pub(crate) fn marked(mark: char, text: &str) -> String {
    text.lines().map(|line| format!("{mark} {line}")).collect::<Vec<_>>().join("\n")
}

/// Entry `[i][j]` is the length of the longest common subsequence of `old[i..]` and `new[j..]`.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<Vec<u32>> {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_marked() {
        let lines = diff(&[Some("a"), Some("b")], &[Some("a"), Some("c")]);
        assert_eq!(lines, "  [\n      Some(\n          \"a\",\n      ),\n      Some(\n-         \"b\",\n+         \"c\",\n      ),\n  ]");
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_marked() {
        assert_eq!(diff(&[1, 2], &[2, 3]), "  [\n-     1,\n      2,\n+     3,\n  ]");
    }

    #[test]
    fn values_that_print_alike_are_not_shown_as_equal() {
        assert!(diff(&f64::NAN, &f64::NAN).contains("both print the same"));
    }
}
