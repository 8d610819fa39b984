#!/bin/sh
# apply.sh PAGE TREE CHANGES: makes the changes to TREE that PAGE describes, at least so many. A comment in the page
#   <!-- apply FILE after "TEXT" -->   or   before "TEXT"   or   new ""
# puts the code block that follows it after, or before, the first line of FILE that contains TEXT, or makes the file of it.
set -eu
page=$1
tree=$2
awk -v tree="$tree" -v page="$page" -v least="$3" '
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
    done = where == "new"
    if (done) result = block
    else while ((getline line < file) > 0) {
      if (!done && where == "before" && index(line, text)) { result = result block; done = 1 }
      result = result line "\n"
      if (!done && where == "after" && index(line, text)) { result = result block; done = 1 }
    }
    close(file)
    if (!done) { print page ": no line of " file " contains: " text; failed = 1; exit 1 }
    printf "%s", result > file
    close(file)
    ++count
  }
  END {
    if (failed) exit 1
    print count " changes applied"
    if (count < least) exit 1
  }' "$page"
