#!/bin/sh
# apply.sh PAGE TREE: makes the changes to TREE that PAGE describes. A comment in the page
#   <!-- apply FILE after "TEXT" -->   or   before "TEXT"
# puts the code block that follows it after, or before, the first line of FILE that contains TEXT.
set -eu
page=$1
tree=$2
awk -v tree="$tree" '
  /^<!-- apply / {
    file = tree "/" $3
    where = $4
    text = $0
    sub(/^[^"]*"/, "", text)
    sub(/" -->$/, "", text)
    waiting = 1
    next
  }
  waiting && /^```/ {
    if (!inside) { inside = 1; block = ""; next }
    inside = waiting = 0
    insert()
    next
  }
  inside { block = block $0 "\n" }
  function insert(   line, result, done) {
    result = ""
    done = 0
    while ((getline line < file) > 0) {
      if (!done && where == "before" && index(line, text)) { result = result block; done = 1 }
      result = result line "\n"
      if (!done && where == "after" && index(line, text)) { result = result block; done = 1 }
    }
    close(file)
    if (!done) { print "adding-an-op.md: no line of " file " contains: " text; failed = 1; exit 1 }
    printf "%s", result > file
    close(file)
    ++count
  }
  END {
    if (failed) exit 1
    print count " changes applied"
    if (count < 10) exit 1
  }' "$page"
