# harness.R -- what the R adapters share: as harness.py. Rscript bench_<package>.R MODEL METHOD REPETITIONS
suppressMessages(library(jsonlite))
HERE <- Sys.getenv("BENCH_HOME"); DATA <- Sys.getenv("BENCH_DATA", file.path(HERE, "out", "data"))
load_data <- function(m) {
  d <- read.csv(file.path(DATA, paste0(m$csv, ".csv")), stringsAsFactors = FALSE)
  if (!is.null(m$complete)) { cc <- unlist(m$complete); d <- d[complete.cases(d[, cc]), cc] }
  for (f in unlist(m$factors)) if (f %in% names(d)) d[[f]] <- if (is.null(m$levels[[f]])) factor(d[[f]]) else factor(d[[f]], levels = unlist(m$levels[[f]]))
  if (identical(m$family, "cumulative")) d[[m$y]] <- ordered(d[[m$y]])
  d
}
lmer_formula <- function(m) as.formula(paste(m$y, "~", m$fixed, "+",
  paste(sapply(m$random, function(r) sprintf("(%s | %s)", r[[1]], r[[2]])), collapse = " + ")))
nodes <- function(method) if (startsWith(method, "laplace")) 1L else as.integer(gsub("[^0-9]", "", method))
memory <- function(key) as.numeric(gsub("[^0-9]", "", grep(paste0("^", key, ":"), readLines("/proc/self/status"), value = TRUE))) / 1024
emit <- function(...) { cat("@@", toJSON(list(...), auto_unbox = TRUE, digits = 14, null = "null", na = "null"), "\n", sep = ""); flush(stdout()) }
unsupported <- function(why) { cat("unsupported:", why, "\n"); quit(status = 0) }
once <- function(fit, read) {
  invisible(gc()); try(writeLines("5", "/proc/self/clear_refs"), silent = TRUE)
  before <- memory("VmRSS"); said <- character()
  hush <- function(restart) function(w) { said <<- c(said, substr(conditionMessage(w), 1, 160)); invokeRestart(restart) }
  cpu <- sum(proc.time()[1:2]); wall <- Sys.time()
  f <- tryCatch(withCallingHandlers(fit(), warning = hush("muffleWarning"), message = hush("muffleMessage")), error = function(e) e)
  wall <- as.numeric(difftime(Sys.time(), wall, units = "secs")); cpu <- sum(proc.time()[1:2]) - cpu; peak <- memory("VmHWM")
  if (inherits(f, "error")) { emit(event = "error", error = substr(conditionMessage(f), 1, 400)); return(FALSE) }
  do.call(emit, c(list(event = "fit", t = wall, cpu = cpu, memory = peak - before, peak = peak, warnings = I(unique(said))), read(f)))
  TRUE
}
main <- function(make, read) {
  a <- commandArgs(TRUE); m <- fromJSON(file.path(HERE, "models.json"), simplifyVector = FALSE)[[a[1]]]
  fit <- make(m, a[2]); emit(event = "loaded")
  for (i in seq_len(as.integer(a[3]))) if (!once(fit, read)) break
}
