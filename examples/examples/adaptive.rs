//! Adaptive slices, on the running kernel: `sudo cargo run --release --example adaptive`.

#[cfg(feature = "kernel")]
fn main() -> qumun::Result<()> {
    let exit = qumun::builder("adaptive").run(qumun_examples::adaptive::Adaptive::default())?;
    println!("{exit}");
    Ok(())
}

#[cfg(not(feature = "kernel"))]
fn main() {
    eprintln!("built without the feature `kernel`: there is nothing to run this on");
    std::process::exit(1);
}
