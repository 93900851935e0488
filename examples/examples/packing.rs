//! Batch packing, on the running kernel: `sudo cargo run --release --example packing`.

#[cfg(feature = "kernel")]
fn main() -> qumun::Result<()> {
    let exit = qumun::builder("packing").run(qumun_examples::packing::Packing::default())?;
    println!("{exit}");
    Ok(())
}

#[cfg(not(feature = "kernel"))]
fn main() {
    eprintln!("built without the feature `kernel`: there is nothing to run this on");
    std::process::exit(1);
}
