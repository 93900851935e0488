//! Shares for cgroups, on the running kernel: `sudo cargo run --release --example shares`.

#[cfg(feature = "kernel")]
fn main() -> qumun::Result<()> {
    let exit = qumun::builder("shares").run(qumun_examples::shares::Shares::default())?;
    println!("{exit}");
    Ok(())
}

#[cfg(not(feature = "kernel"))]
fn main() {
    eprintln!("built without the feature `kernel`: there is nothing to run this on");
    std::process::exit(1);
}
