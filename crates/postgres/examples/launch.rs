//! The launcher as a program of its own, for the tests.

fn main() -> std::process::ExitCode {
    pgward_postgres::launch_main(std::env::args_os().skip(1))
}
