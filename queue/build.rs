fn main() {
    // A migration that is added, which no file of the crate names, must be embedded too.
    println!("cargo:rerun-if-changed=../migrations");
}
