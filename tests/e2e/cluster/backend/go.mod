module longline.test/backend

go 1.24.0
