# Which files of a folder are no longer what was made: `bash spoilt.sh FOLDER` looks at those that changed since their
# checksum (sums/) was written, or that lack what was made beside them; `bash spoilt.sh FOLDER all` reads all of them.
# What is spoilt gets the time of now, so that the next make sees it as well.
cd "$1" 2>/dev/null || exit 0
for sum in sums/*; do
    made=${sum#sums/}
    [ -e "$made" ] || continue
    doubt=${2:-}
    while read -r _ file; do
        if [ ! -e "$file" ] || [ "$file" -nt "$sum" ]; then doubt=1; fi
    done < "$sum"
    if [ -n "$doubt" ] && ! sha256sum --check --status "$sum" 2>/dev/null; then
        touch "$made"
        echo "$1/$made"
    elif [ -n "$doubt" ]; then
        touch "$sum"
    fi
done
