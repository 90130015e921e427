module github.com/understudy-mq/understudy/scripts/harness

go 1.26.0
