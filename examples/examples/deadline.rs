//! Earliest deadline first , on the running kernel: `sudo cargo run --release --example deadline`.

#[cfg(feature = "kernel")]
fn main() -> qumun::Result<()> {
    let exit = qumun::builder("deadline").run(qumun_examples::deadline::Deadline)?;
    println!("{exit}");
    Ok(())
}

#[cfg(not(feature = "kernel"))]
fn main() {
    eprintln!("built without the feature `kernel`: there is nothing to run this on");
    std::process::exit(1);
}
