//! What must come of each command, by file: written by the bench, read by the bare loop before it starts.

use crate::Failure;
use crate::workload::{Balance, Input};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What must come of a command: the account afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) balance: u64,
    pub(super) sequence: u32,
    pub(super) accepted: bool,
}

/// The bytes of a [`Planned`] in the file, little endian.
const PLANNED_BYTES: usize = 13;

/// Writes the plan: for each partition the number of its commands, and what must come of each, in the order of their offsets.
pub(super) fn write_plan(input: &Input, path: &Path) -> Result<(), Failure> {
    let mut partitions = vec![Vec::new(); input.workload.partitions as usize];
    let mut balances = vec![Balance::default(); input.workload.accounts as usize];
    for command in &input.commands {
        let balance = &mut balances[command.account as usize];
        let accepted = balance.apply(command.amount, command.deposit);
        let plan = &mut partitions[input.partition(command) as usize];
        plan.extend_from_slice(&balance.amount.to_le_bytes());
        plan.extend_from_slice(&balance.sequence.to_le_bytes());
        plan.push(u8::from(accepted));
    }
    let mut out = BufWriter::new(fs::File::create(path)?);
    for plan in partitions {
        out.write_all(&(plan.len() / PLANNED_BYTES).to_le_bytes())?;
        out.write_all(&plan)?;
    }
    Ok(out.flush()?)
}

/// Reads the plan of each partition; `None` when it is torn.
pub(super) fn read_plan(bytes: &[u8]) -> Option<Vec<Vec<Planned>>> {
    let (mut rest, mut partitions) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (count, behind) = rest.split_first_chunk::<8>()?;
        let (plan, behind) = behind.split_at_checked(usize::from_le_bytes(*count) * PLANNED_BYTES)?;
        let planned = |bytes: &[u8]| {
            let (balance, rest) = bytes.split_first_chunk::<8>()?;
            let (sequence, accepted) = rest.split_first_chunk::<4>()?;
            Some(Planned { balance: u64::from_le_bytes(*balance), sequence: u32::from_le_bytes(*sequence), accepted: accepted == [1] })
        };
        partitions.push(plan.chunks_exact(PLANNED_BYTES).map(planned).collect::<Option<Vec<_>>>()?);
        rest = behind;
    }
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Skew, Workload};

    #[test]
    fn the_plan_comes_back_with_every_command_in_its_partition() {
        let input = Input::generate(Workload { accounts: 50, opening: false, commands: 2000, skew: Skew::Zipf, seed: 1, partitions: 4 });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        write_plan(&input, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let plan = read_plan(&bytes).unwrap();
        for partition in 0..4 {
            let accepted: Vec<bool> = plan[partition as usize].iter().map(|p| p.accepted).collect();
            let expected: Vec<bool> = input.commands.iter().filter(|c| input.partition(c) == partition).map(|c| c.accepted).collect();
            assert_eq!(accepted, expected);
        }
        assert_eq!(read_plan(&bytes[..bytes.len() - 1]), None);
    }
}
