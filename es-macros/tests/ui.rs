//! The messages of the macros: each file of `ui/` fails with what its `.stderr` holds. Renew those with `TRYBUILD=overwrite`.

#[test]
fn errors_stand_on_the_token_at_fault_and_tell_the_mend() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
