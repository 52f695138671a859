//! What is known of each mutant, in a text file, and the report that is made of it in `MUTANTS.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// A mutant, and what found it: one line of the record, its fields between bars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The rule that it breaks, by its number in ARCHITECTURE.md's list of what must always hold.
    pub(super) rule: u8,
    pub(super) name: String,
    /// The checker that was the first to find it.
    pub(super) checker: String,
    /// The first seed that finds it, from 0 on; `None` where no simulation does.
    pub(super) seed: Option<u64>,
}

/// The mutants of one kind.
pub(super) struct Record {
    /// The record's file, and the name of its table in the report.
    pub(super) file: &'static str,
    pub(super) table: &'static str,
    /// Rule and name of each mutant, in the order of the report.
    pub(super) mutants: Vec<(u8, String)>,
}

impl Record {
    /// The recorded rows.
    pub(super) fn read(&self) -> Vec<Row> {
        let text = fs::read_to_string(path("tests/mutants").join(self.file)).unwrap_or_default();
        text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("{}: `{line}` is no row", self.file))).collect()
    }

    /// Puts a row in the place of the former one of this name, and forgets those of mutants that are no more.
    pub(super) fn write(&self, row: Row) {
        // Tests run on several threads.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().expect("no one panics while writing");
        let place = |row: &Row| self.mutants.iter().position(|(_, name)| *name == row.name);
        let mut rows = self.read();
        rows.retain(|known| known.name != row.name && place(known).is_some());
        rows.push(row);
        rows.sort_by_key(place);
        let seed = |row: &Row| row.seed.map_or_else(|| "-".to_owned(), |seed| seed.to_string());
        let text: String = rows.iter().map(|row| format!("{} | {} | {} | {}\n", row.rule, row.name, row.checker, seed(row))).collect();
        fs::write(path("tests/mutants").join(self.file), text).expect("the record can be written");
        fs::write(path("MUTANTS.md"), self.with_table(&report(), &rows)).expect("MUTANTS.md can be written");
    }

    /// Whether every mutant, and no other, is in the record, and all of it is in the report.
    ///
    /// # Panics
    /// With what is not.
    pub(super) fn check(&self) {
        let rows = self.read();
        let known: Vec<(u8, String)> = rows.iter().map(|row| (row.rule, row.name.clone())).collect();
        assert_eq!(known, self.mutants, "{} is not of these mutants; {HOW}", self.file);
        assert_eq!(report(), self.with_table(&report(), &rows), "MUTANTS.md does not say what {} says; {HOW}", self.file);
    }

    /// The report with this table made anew.
    fn with_table(&self, report: &str, rows: &[Row]) -> String {
        let [begin, end] = ["begin", "end"].map(|what| format!("<!-- {}: {what} -->\n", self.table));
        let [from, to] = [&begin, &end].map(|mark| report.find(mark).unwrap_or_else(|| panic!("MUTANTS.md lacks `{}`", mark.trim())));
        let mut table = "| rule | planted violation | found by | seeds it took |\n|---|---|---|---|\n".to_owned();
        for Row { rule, name, checker, seed } in rows {
            let seeds = seed.map_or_else(|| "–".to_owned(), |seed| (seed + 1).to_string());
            writeln!(table, "| {rule} | {} | {checker} | {seeds} |", name.replace('_', " ")).expect("a string takes all");
        }
        format!("{}{begin}{table}{}", &report[..from], &report[to..])
    }
}

pub(super) const HOW: &str = "after a change of engine or simulation look for the seeds anew, as tests/mutants/main.rs says";

fn parse(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let [rule, name, checker, seed] = fields[..] else { return None };
    let seed = if seed == "-" { None } else { Some(seed.parse().ok()?) };
    Some(Row { rule: rule.parse().ok()?, name: name.to_owned(), checker: checker.to_owned(), seed })
}

fn report() -> String {
    fs::read_to_string(path("MUTANTS.md")).expect("MUTANTS.md is there")
}

fn path(of: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(of)
}
