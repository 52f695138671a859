//! The jars of Kafka and the Java that runs them.

use super::KafkaError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version of Apache Kafka that tests run against.
pub const KAFKA_VERSION: &str = "4.3.1";

/// The oldest Java that this Kafka runs on.
const JAVA_VERSION: u32 = 17;

/// Kafka's jars on this machine, and the Java to run them with.
///
/// The jars (55 MB) are fetched from Maven Central once, into the folder `$ES_KAFKA_HOME`, by default `kafka-<version>` in cargo's target
/// folder. They appear there in one step, so that an interrupted fetch leaves nothing that looks whole, and a lock lets processes that start
/// at the same time fetch once.
#[derive(Debug, Clone)]
pub struct Distribution {
    java: PathBuf,
    home: PathBuf,
}

impl Distribution {
    /// Finds Java and the jars, and fetches the jars where they are missing.
    ///
    /// # Errors
    /// [`KafkaError::Missing`] without a JDK from 17 on or, while the jars are still to be fetched, without Maven; [`KafkaError::Failed`] when the fetch
    /// failed.
    pub fn obtain() -> Result<Self, KafkaError> {
        let distribution = Self::find()?;
        distribution.fetch()?;
        Ok(distribution)
    }

    /// Finds Java, and the jars or the means to fetch them, without fetching.
    ///
    /// # Errors
    /// [`KafkaError::Missing`] when a broker cannot run here.
    pub fn find() -> Result<Self, KafkaError> {
        let distribution = Distribution { java: find_java()?, home: home() };
        if !distribution.jars().exists() && !runs(Command::new("mvn").arg("--version")) {
            return Err(KafkaError::Missing("Maven is missing (`mvn --version` does not run): install the package `maven`".into()));
        }
        Ok(distribution)
    }

    /// The folder that keeps the jars.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A call of a Java class of the jars, still without arguments, with at most `heap_megabytes` MiB of heap and these options of the
    /// JVM. It logs to its standard error.
    pub(super) fn java(&self, class: &str, heap_megabytes: u32, options: &[String], log_level: &str) -> Command {
        let mut command = Command::new(&self.java);
        command
            .arg(format!("-Xmx{heap_megabytes}m"))
            .args(options)
            .arg("-cp")
            .arg(self.jars().join("*"))
            .arg(format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"))
            .args(["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"])
            .arg(class);
        command
    }

    /// The path of one of the JDK's programs: `java`, or what is beside it, such as `javac`.
    pub fn jdk_program(&self, name: &str) -> PathBuf {
        self.java.with_file_name(name)
    }

    /// The options of the JVM that shorten its start, at the expense of its speed: the start is most of a tool's running time.
    pub fn quick_start() -> Vec<String> {
        ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned).to_vec()
    }

    fn jars(&self) -> PathBuf {
        self.home.join("jars")
    }

    fn fetch(&self) -> Result<(), KafkaError> {
        if self.jars().exists() {
            return Ok(());
        }
        let failed = |cause: &dyn std::fmt::Display| {
            KafkaError::failed(format_args!("could not fetch Apache Kafka {KAFKA_VERSION} into {}", self.home.display()), cause)
        };
        fs::create_dir_all(&self.home).map_err(|e| failed(&e))?;
        let lock = File::create(self.home.join("lock")).map_err(|e| failed(&e))?;
        lock.lock().map_err(|e| failed(&e))?;
        if self.jars().exists() {
            return Ok(());
        }
        tracing::info!(home = %self.home.display(), "fetching Apache Kafka {KAFKA_VERSION} from Maven Central");
        let partial = self.home.join("jars.partial");
        let _ = fs::remove_dir_all(&partial);
        fs::write(self.home.join("pom.xml"), pom()).map_err(|e| failed(&e))?;
        let output = Command::new("mvn")
            .args(["--batch-mode", "--quiet", "--file"])
            .arg(self.home.join("pom.xml"))
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", partial.display()))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed(&e))?;
        if !output.status.success() {
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            return Err(failed(&format_args!("`mvn dependency:copy-dependencies` ended with {}\n{said}", output.status)));
        }
        fs::rename(&partial, self.jars()).map_err(|e| failed(&e))
    }
}

/// The pom that names the jars: the broker, the tools and a plain logger.
fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!("    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>\n")
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>es-testkit</groupId>
  <artifactId>kafka</artifactId>
  <version>{KAFKA_VERSION}</version>
  <packaging>pom</packaging>
  <dependencies>
{}{}{}  </dependencies>
  <build><pluginManagement><plugins>
    <plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId><version>3.8.1</version></plugin>
  </plugins></pluginManagement></build>
</project>
",
        dependency("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        dependency("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    )
}

fn home() -> PathBuf {
    std::env::var_os("ES_KAFKA_HOME").map_or_else(|| target_folder().join(format!("kafka-{KAFKA_VERSION}")), PathBuf::from)
}

/// Cargo's target folder: the one that this program was built into, known by the file in which cargo keeps what it knows of rustc.
fn target_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|folder| folder.join(".rustc_info.json").exists());
    target.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

fn find_java() -> Result<PathBuf, KafkaError> {
    let advice = "install a JDK, on Debian the package `default-jdk-headless`, or set JAVA_HOME";
    let java = std::env::var_os("JAVA_HOME").map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"));
    let Ok(output) = Command::new(&java).arg("-version").output() else {
        return Err(KafkaError::Missing(format!("Java is missing (`{} -version` does not run): {advice}", java.display())));
    };
    let said = String::from_utf8_lossy(&output.stderr);
    match java_major(&said) {
        // The reader of topics is run from its source.
        Some(major) if major >= JAVA_VERSION && !runs(Command::new(java.with_file_name("javac")).arg("-version")) => {
            Err(KafkaError::Missing(format!("{} has no compiler (`javac`) beside it: {advice}", java.display())))
        }
        Some(major) if major >= JAVA_VERSION => Ok(java),
        _ => {
            let line = said.lines().next().unwrap_or("nothing");
            Err(KafkaError::Missing(format!(
                "Java {JAVA_VERSION} or newer is missing (`{} -version` says: {line}): {advice}",
                java.display()
            )))
        }
    }
}

/// The major version in what `java -version` says, for example 17 in `openjdk version "17.0.15" 2025-04-15`.
fn java_major(said: &str) -> Option<u32> {
    said.split_once("version \"")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn runs(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_java_is_read_from_what_it_says() {
        let check = |said, major| assert_eq!(java_major(said), major, "{said}");
        check("openjdk version \"17.0.15\" 2025-04-15", Some(17));
        check("openjdk version \"21\" 2023-09-19", Some(21));
        check("java version \"1.8.0_292\"", Some(1));
        check("openjdk version \"25-ea\" 2025-09-16", Some(25));
        check("bash: java: command not found", None);
    }
}
