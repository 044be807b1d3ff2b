//! The manifold binary.

fn main() -> std::process::ExitCode {
    manifold::run()
}
